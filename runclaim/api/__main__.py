"""
`python -m runclaim.api`: serve the API; what `runclaim api` runs.

It listens on 127.0.0.1 unless told otherwise, and nowhere else while there is no token that could be used.
"""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import uvicorn

from runclaim import logs, migrations
from runclaim.api import create_app
from runclaim.api.connections import trusting
from runclaim.config import resolve
from runclaim.errors import ConfigError, LedgerUnavailable, RunclaimError
from runclaim.ledger.doors import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi import FastAPI

    from runclaim.api.server import Server
    from runclaim.app import Runclaim


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    arguments = _arguments()
    try:
        serve(
            app=arguments.app,
            url=arguments.url,
            host=arguments.host,
            port=arguments.port,
            proxies=tuple(arguments.trust_proxy),
            root_path=arguments.root_path,
        )
    except RunclaimError as refused:
        sys.exit(f"runclaim: {refused}")


def serve(
    *, app: str | None, url: str | None, host: str, port: int, proxies: Sequence[str] = (), root_path: str = ""
) -> None:
    """Serve on one address. Raises: ConfigError, SchemaBehind."""
    require_addresses(proxies)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    application = _application(app)
    config = application.config if application else resolve({"database_url": url}, os.environ, {})
    made = create_app(config, application)
    api: Server = made.state.server
    require_safe(api, host)
    print(f"runclaim: API on http://{_bracketed(host)}:{port}, ledger {api.database}", file=sys.stderr, flush=True)  # noqa: T201
    # The server ends in order and then sends itself the signal again: that is the end, and no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # What the server prints of an error is redacted as our own lines are.
    logs.logger("uvicorn.error")
    server = uvicorn.Server(settings(made, host=host, port=port, proxies=proxies, root_path=root_path))
    server.run()
    if not server.started:
        sys.exit(uvicorn.config.STARTUP_FAILURE)


def settings(app: FastAPI, *, proxies: Sequence[str] = (), root_path: str = "", **how: Any) -> uvicorn.Config:
    """How the app is served: with bounded connections, and believing no header that a proxy of ours did not write."""
    return uvicorn.Config(
        app,
        http=trusting(proxies),
        ws="none",
        server_header=False,
        # The gate writes a line that holds no query.
        access_log=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        root_path=root_path.rstrip("/"),
        h11_max_incomplete_event_size=64 * 1024,
        # A client that follows a run is not waited for; it comes back to another process.
        timeout_graceful_shutdown=5,
        **how,
    )


def require_addresses(proxies: Sequence[str]) -> None:
    """Raises: ConfigError where a proxy is not named by its address."""
    for each in proxies:
        try:
            ipaddress.ip_address(each)
        except ValueError:
            raise ConfigError(f"--trust-proxy {each!r} is not an IP address; give the address of the proxy") from None


def require_safe(server: Server, host: str) -> None:
    """Raises: SchemaBehind; ConfigError where strangers could ask and no token would tell them apart."""
    try:
        migrations.require_current(server.database)
        is_guarded = server.ask(tokens.usable) > 0
    except LedgerUnavailable as away:
        is_guarded = False
        logs.logger("runclaim.api").warning("%s", away)
    if not is_guarded and not _is_local(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and the ledger has no usable token:"
            " run `runclaim token create` first, or listen on 127.0.0.1"
        )


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _application(name: str | None) -> Runclaim | None:
    if name is None:
        return None
    # As `celery -A` does: the module lies in the working directory.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds text
    from runclaim.attached import find

    return find(name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m runclaim.api", description="Serve the HTTP API. `runclaim api --help` describes the options."
    )
    parser.add_argument("--app")
    parser.add_argument("--url")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8400)
    parser.add_argument("--trust-proxy", action="append", default=[])
    parser.add_argument("--root-path", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
