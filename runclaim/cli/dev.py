"""
`runclaim dev`: worker, beat and a private broker for the app in the working directory, in one command.

The ledger is a SQLite file and the broker a Valkey of our own on a fixed port, unless the environment names others.
What they are is shared in the folder `.runclaim`, so another terminal needs to be told nothing. Every line of the log
says which process wrote it; Ctrl-C ends all of them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from runclaim import local_folder
from runclaim.cli.celery_programs import FLOWER_COLUMNS
from runclaim.cli.dev_broker import DEFAULT_PORT, dev_broker
from runclaim.cli.exits import Refused
from runclaim.cli.processes import Processes
from runclaim.local_folder import APP, BROKER_URL, LEDGER_URL, Shared
from runclaim.servers.machine import is_free
from runclaim.urls import masked

_FLOWER_PORT: Final = 5555
_ELSEWHERE: Final = "work in a directory of your own, or remove the folder if nothing in it is needed"
#: For what a process of ours writes, without a say in it, where others could read it.
_ONLY_US: Final = 0o077


@click.command()
@click.option("-A", "--app", required=True, metavar="MODULE", help="The module with your Celery app, as for celery -A.")
@click.option("-c", "--concurrency", default=4, show_default=True, help="Pool slots of the worker.")
@click.option(
    "-P", "--pool", default="prefork", show_default=True, help="Pool of the worker: prefork, threads or solo."
)
@click.option("-l", "--loglevel", default="info", show_default=True, help="Celery's log level.")
@click.option(
    "--port",
    type=click.IntRange(1024, 65535),
    help=f"Port of the private broker; default: the one that this project had last, else {DEFAULT_PORT}.",
)
@click.option(
    "--flower/--no-flower", default=None, help=f"Run Flower on 127.0.0.1:{_FLOWER_PORT}; default: if it is installed."
)
def command(*, app: str, concurrency: int, pool: str, loglevel: str, port: int | None, flower: bool | None) -> None:
    """
    Run worker, beat and a private broker in one command.

    Uses RUNCLAIM_DATABASE_URL and CELERY_BROKER_URL if they are set. Every command and every Runclaim(app) that starts
    in this directory meanwhile uses the same ledger and broker. Ctrl-C stops everything.
    """
    folder, with_flower = _folder(), _wants_flower(flower, app)
    with ExitStack() as stack:
        last = stack.enter_context(local_folder.held(folder))
        environment = _environment(stack, folder, app, last, port)
        processes = stack.enter_context(Processes(environment))
        celery = [sys.executable, "-m", "celery", "-A", app]
        shared = ["--loglevel", loglevel]
        processes.start(
            "worker",
            [*celery, "worker", "-E", "-c", str(concurrency), "-P", pool, "-n", "dev@%h", "--without-mingle", *shared],
        )
        schedule = ["-s", str(folder / "beat-schedule"), "--pidfile="]
        processes.start("beat", [*celery, "beat", *schedule, *shared], umask=_ONLY_US)
        if with_flower:
            processes.start(
                "flower", [*celery, "flower", "--address=127.0.0.1", f"--port={_FLOWER_PORT}", FLOWER_COLUMNS]
            )
        sys.exit(processes.watch())


def _folder() -> Path:
    """The project's folder. Raises: Refused where it cannot be made, or is another user's."""
    folder = local_folder.nearest()
    try:
        local_folder.make(folder)
    except OSError as error:
        raise Refused(f"the folder {folder} cannot be made: {error.strerror}; {_ELSEWHERE}") from error
    if not local_folder.is_private(folder):  # other processes would not read what is shared there
        raise Refused(f"the folder {folder} belongs to another user; {_ELSEWHERE}")
    return folder


def _environment(stack: ExitStack, folder: Path, app: str, last: Shared, port: int | None) -> dict[str, str]:
    """The children's environment: the caller's, with a ledger and a broker, each announced with its origin."""
    from runclaim.config import resolve, sources

    ledger, source = resolve({}, os.environ, {}).database_url, sources({}, os.environ, {})["database_url"]
    private = last.private_broker
    if broker := os.environ.get(BROKER_URL, ""):
        broker_from = f"from {BROKER_URL}"
    else:
        server = stack.enter_context(dev_broker(private, port))
        broker, private, broker_from = server.url, server.url, f"private, {server.how}"
    variables = {LEDGER_URL: ledger, BROKER_URL: broker, APP: app}
    local_folder.share(folder, Shared(str(Path.cwd()), variables, private))
    _say(f"ledger  {masked(ledger)}  ({'a SQLite file' if source == 'default' else f'from {source}'})")
    _say(f"broker  {masked(broker)}  ({broker_from})")
    _say("in another terminal in this directory: runclaim runs list")
    _say("Ctrl-C stops everything.")
    # The app's module lies here, as for `celery -A` itself.
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **variables, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


def _wants_flower(flower: bool | None, app: str) -> bool:  # noqa: FBT001 - as the option is
    """Whether to start Flower. Raises: Refused where it was asked for and its port is taken."""
    if flower is False or (flower is None and importlib.util.find_spec("flower") is None):
        return False
    if is_free(_FLOWER_PORT):
        return True
    elsewhere = f"the port {_FLOWER_PORT} is taken; to have Flower on another: runclaim flower -A {app} --port=5556"
    if flower:
        raise Refused(elsewhere)
    _say(f"no Flower: {elsewhere}")
    return False


def _say(text: str) -> None:
    click.echo(f"dev     | {text}", err=True)
