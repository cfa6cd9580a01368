"""`runclaim api`: the HTTP API, in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from runclaim.cli.environment import APP, LEDGER_URL


@click.command()
@click.option(
    "-A",
    "--app",
    metavar="MODULE",
    envvar=APP,
    help="Your application: publishes runs at once and serves its webhooks.",
)
@click.option("--url", metavar="URL", help=f"The database of the ledger; default: {LEDGER_URL}.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; beyond this machine, the ledger must have a token.",
)
@click.option("--port", default=8400, show_default=True, help="Port to listen on.")
@click.option(
    "--trust-proxy", metavar="ADDRESS", multiple=True, help="Trust X-Forwarded-For from this address; repeatable."
)
@click.option("--root-path", metavar="/PATH", default="", help="Path prefix that the proxy strips.")
def command(
    *, app: str | None, url: str | None, host: str, port: int, trust_proxy: tuple[str, ...], root_path: str
) -> None:
    """
    Serve the HTTP API until SIGTERM or Ctrl-C.

    Without an application, beat publishes the runs that are enqueued here, within its dispatch_every.
    """
    if missing := [name for name in ("fastapi", "uvicorn", "limits") if importlib.util.find_spec(name) is None]:
        raise click.ClickException(f"the API needs {missing[0]}: pip install 'runclaim[api]'")
    if app and url:
        raise click.UsageError("--app brings its own ledger; leave out --url")
    told = [("--app", app), ("--host", host), ("--port", str(port)), ("--root-path", root_path or None)]
    told += [("--trust-proxy", each) for each in trust_proxy]
    words = [word for name, value in told if value is not None for word in (name, value)]
    # Not as a word: every user of the machine sees those, for as long as the server runs.
    named = {} if url is None else {LEDGER_URL: url}
    sys.stdout.flush()
    # This process becomes the server: signals reach it as they are sent.
    os.execve(sys.executable, [sys.executable, "-m", "runclaim.api", *words], os.environ | named)  # noqa: S606 - our own words
