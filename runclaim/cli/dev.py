"""
`runclaim dev`: worker, beat and a private broker for the app in the working directory, in one command.

The ledger is a SQLite file and the broker a Valkey of our own, unless the environment names others. Every
line of the log says which process wrote it; Ctrl-C ends all of them.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from runclaim.cli.environment import APP, LEDGER_URL
from runclaim.cli.processes import Processes
from runclaim.servers import ServerMissing, valkey
from runclaim.urls import masked

#: Flower hides the arguments, where the run key is, unless it is asked for them.
_COLUMNS = "name,args,state,result,received,runtime,worker"
_BROKER_URL = "CELERY_BROKER_URL"


@click.command()
@click.option("-A", "--app", required=True, metavar="MODULE", help="The module with your Celery app, as for celery -A.")
@click.option("-c", "--concurrency", default=4, show_default=True, help="Pool slots of the worker.")
@click.option(
    "-P", "--pool", default="prefork", show_default=True, help="Pool of the worker: prefork, threads or solo."
)
@click.option("-l", "--loglevel", default="info", show_default=True, help="Celery's log level.")
@click.option("--dir", "folder", default=".runclaim", show_default=True, help="Folder of the SQLite file.")
@click.option("--flower/--no-flower", default=None, help="Run Flower on 127.0.0.1:5555; default: if it is installed.")
def command(*, app: str, concurrency: int, pool: str, loglevel: str, folder: str, flower: bool | None) -> None:
    """
    Run worker, beat and a private broker in one command.

    Uses RUNCLAIM_DATABASE_URL and CELERY_BROKER_URL if they are set. Ctrl-C stops everything.
    """
    home = Path(folder).absolute()
    # Inputs and results of runs are private.
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        environment = _environment(stack, home, app)
        processes = stack.enter_context(Processes(environment))
        celery = [sys.executable, "-m", "celery", "-A", app]
        shared = ["--loglevel", loglevel]
        processes.start(
            "worker",
            [*celery, "worker", "-E", "-c", str(concurrency), "-P", pool, "-n", "dev@%h", "--without-mingle", *shared],
        )
        processes.start("beat", [*celery, "beat", "-s", str(home / "beat-schedule"), "--pidfile=", *shared])
        if flower or (flower is None and importlib.util.find_spec("flower")):
            processes.start(
                "flower", [*celery, "flower", "--address=127.0.0.1", "--port=5555", f"--tasks_columns={_COLUMNS}"]
            )
        sys.exit(processes.watch())


def _environment(stack: ExitStack, home: Path, app: str) -> dict[str, str]:
    """The children's environment: the caller's, with a ledger and a broker, each announced with its origin."""
    from sqlalchemy import URL

    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # The app's module lies here, as for `celery -A` itself.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    if LEDGER_URL in environment:
        ledger_from = f"from {LEDGER_URL}"
    else:
        environment[LEDGER_URL] = URL.create("sqlite", database=str(home / "ledger.db")).render_as_string()
        ledger_from = "a SQLite file"
    if _BROKER_URL in environment:
        broker_from = f"from {_BROKER_URL}"
    else:
        try:
            broker = stack.enter_context(valkey(password=secrets.token_urlsafe(24)))
        except ServerMissing as missing:
            raise click.ClickException(
                f"{missing}\nOr use a broker of your own: export {_BROKER_URL}=redis://…"
            ) from missing
        environment[_BROKER_URL], broker_from = broker.url, f"private, {broker.how}"
    _say(f"ledger  {masked(environment[LEDGER_URL])}  ({ledger_from})")
    _say(f"broker  {masked(environment[_BROKER_URL])}  ({broker_from})")
    environment[APP] = app
    _say("to enqueue from another terminal, paste these lines there first:")
    for name in (LEDGER_URL, _BROKER_URL, APP):
        if name not in os.environ:
            # Nothing before it: the line is for a shell.
            click.echo(f"export {name}={shlex.quote(environment[name])}", err=True)
    _say("then list your runs with: runclaim runs list")
    _say("Ctrl-C stops everything.")
    return environment


def _say(text: str) -> None:
    click.echo(f"dev     | {text}", err=True)
