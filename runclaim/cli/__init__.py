"""
The command line. No help imports Celery or SQLAlchemy: commands load when they are called.

Data goes to stdout and talk to stderr, tables and colours only to a terminal. Exit codes: `runclaim.cli.exits`.
"""

from __future__ import annotations

import os
from typing import Final

import click

from runclaim import local_folder
from runclaim.cli.environment import API_URL
from runclaim.cli.lazy import Outermost

#: What is there on the application's side too, as `celery -A app runclaim …`.
SHARED: Final = {
    "runs": ("runclaim.cli.runs", "Enqueue, watch and stop runs."),
    "actions": ("runclaim.cli.actions", "List planned actions; retry or resolve those that failed or are unknown."),
    "listeners": ("runclaim.cli.listeners", "List event listeners; tell them again the events that were given up."),
    "deploy": ("runclaim.cli.deploy", "Check a new release against the runs that the ledger still has."),
    "db": ("runclaim.cli.db", "Create, upgrade and check the ledger's tables."),
    "config": ("runclaim.cli.config", "Show the current settings."),
    "token": ("runclaim.cli.token", "Create, list and revoke tokens for the HTTP API."),
}
_OWN: Final = {
    "worker": ("runclaim.cli.celery_programs:worker", "Run a Celery worker."),
    "beat": ("runclaim.cli.celery_programs:beat", "Run Celery beat, which schedules rescue, dispatch and delivery."),
    "flower": ("runclaim.cli.celery_programs:flower", "Run Flower, with run keys in its task list."),
    "api": ("runclaim.cli.api", "Serve the HTTP API."),
    "dev": ("runclaim.cli.dev", "Run worker, beat and a private broker in one command."),
    "completion": ("runclaim.cli.completion", "Print the completion script for a shell."),
}


@click.group(
    cls=Outermost,
    table=SHARED | _OWN,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 not allowed, 6 unreachable,"
    " 7 the run did not succeed, 8 the wait timed out.",
)
@click.version_option(package_name="runclaim")
@click.option("--no-color", is_flag=True, help="Turn colours off; so does NO_COLOR in the environment.")
@click.pass_context
def command(ctx: click.Context, *, no_color: bool) -> None:
    """Durable runs for Celery."""
    if no_color or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = False
    if not os.environ.get(API_URL):  # an API that is named has a ledger of its own
        local_folder.join(os.environ)


def main() -> None:
    """The `runclaim` program."""
    command(prog_name="runclaim")
