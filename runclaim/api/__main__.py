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
from typing import TYPE_CHECKING

import uvicorn

from runclaim import logs, migrations
from runclaim.api import create_app
from runclaim.config import resolve
from runclaim.errors import ConfigError, LedgerUnavailable, RunclaimError
from runclaim.ledger import tokens

if TYPE_CHECKING:
    from runclaim.api.service import Service
    from runclaim.app import Runclaim


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    told = _arguments()
    try:
        serve(app=told.app, url=told.url, host=told.host, port=told.port)
    except RunclaimError as refused:
        sys.exit(f"runclaim: {refused}")


def serve(*, app: str | None, url: str | None, host: str, port: int) -> None:
    """Serve on one address. Raises: ConfigError, SchemaBehind."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    application = _application(app)
    config = application.config if application else resolve({"database_url": url}, os.environ, {})
    made = create_app(config, application)
    service: Service = made.state.service
    require_safe(service, host)
    print(f"runclaim: API on http://{_shown(host)}:{port}, ledger {service.database}", file=sys.stderr, flush=True)  # noqa: T201
    # The server ends in order and then sends itself the signal again: that is the end, and no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        made,
        host=host,
        port=port,
        log_level="info",
        server_header=False,
        # A client that follows a run is not waited for; it comes back to another process.
        timeout_graceful_shutdown=5,
        limit_concurrency=1000,
        h11_max_incomplete_event_size=64 * 1024,
    )


def require_safe(service: Service, host: str) -> None:
    """Raises: SchemaBehind; ConfigError where strangers could ask and no token would tell them apart."""
    try:
        migrations.require_current(service.database)
        is_guarded = service.ask(tokens.usable) > 0
    except LedgerUnavailable as away:
        is_guarded = False
        logs.logger("runclaim.api").warning("%s", away)
    if not is_guarded and not _is_local(host):
        raise ConfigError(
            f"{host} is reached by others, and the ledger has no token yet that could be used:"
            " run `runclaim token create` first, or listen on 127.0.0.1"
        )


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _application(name: str | None) -> Runclaim | None:
    if name is None:
        return None
    # As `celery -A` does: the module lies in the working directory.
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - sys.path holds text
    from runclaim.attached import find

    return find(name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m runclaim.api")
    parser.add_argument("--app")
    parser.add_argument("--url")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8400)
    return parser.parse_args()


if __name__ == "__main__":
    main()
