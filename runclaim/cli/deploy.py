"""`runclaim deploy`: whether a new release can do what the ledger still has to do."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

import click

from runclaim.cli.exits import Exit
from runclaim.cli.options import app_option, find_app, json_option
from runclaim.cli.terminal import give, give_json, live, one_line, say, talks_live

if TYPE_CHECKING:
    from runclaim.app import Runclaim
    from runclaim.service.release import Misfit, Report

_WIDTH: Final = 80
#: Where lines cannot be overwritten, one is written each time that many more inputs were checked.
_STEP: Final = 20_000


@click.group()
def command() -> None:
    """Check a new release against the runs that the ledger still has."""


@command.command()
@app_option
@click.option(
    "--except-flow",
    "others",
    metavar="NAME",
    multiple=True,
    help="A flow of another application in the same project; repeatable.",
)
@click.option(
    "--at-most",
    type=click.IntRange(min=0),
    default=100_000,
    show_default=True,
    metavar="RUNS",
    help="Check the inputs of at most this many live runs, oldest first.",
)
@json_option
def check(*, app: str | None, others: tuple[str, ...], at_most: int, as_json: bool) -> None:
    """
    Check that a release can do what live runs still need. Exits with 1 and says what to do if not.

    Run it with the new release's code, in CI or before a rollout. Only reads the ledger, and asks no broker. Looks at
    the live runs of the application's project: phases and flows that are gone, inputs that no longer fit, actions
    without a handler, schedules without a flow.
    """
    runs = find_app(app, None)
    if runs is None:
        raise click.UsageError("name the new release's application with -A MODULE")
    report = _report(runs, frozenset(others), at_most)
    if as_json:
        give_json(report.as_json())
    else:
        for each in report.misfits:
            _show(each)
    if report.inputs_checked < report.inputs:
        say(f"checked the inputs of {report.inputs_checked} live runs out of {report.inputs}; raise --at-most for more")
    found = len(report.misfits)
    verdict = f"{found} thing{' does' if found == 1 else 's do'} not fit" if found else "this release fits"
    say(f"{verdict}: {report.runs} live run{'' if report.runs == 1 else 's'} in project {report.project}")
    if report.misfits:
        raise click.exceptions.Exit(Exit.FAILED)


def _report(runs: Runclaim, others: frozenset[str], at_most: int) -> Report:
    """Looks at the ledger on a connection of its own: no file is made, and no schema brought up to date."""
    from runclaim import migrations
    from runclaim.cli.local import require_file
    from runclaim.database import Database
    from runclaim.service.misfits import check_release
    from runclaim.service.release import Release

    require_file(runs.config)
    database = Database(runs.config.database_url, patience=runs.config.ledger_patience)
    release = Release(
        flows=runs.flows, actions=frozenset(runs.ledger.actions), project=runs.config.project, others=others
    )
    try:
        migrations.require_current(database, was_there=True)
        return check_release(database, release, at_most=at_most, progress=_progress)
    finally:
        database.close()


def _progress(checked: int, total: int) -> None:
    if talks_live():
        live(f"checked the inputs of {checked} live runs out of {total}" if checked < total else "")
    elif checked % _STEP == 0 and checked < total:
        say(f"checked the inputs of {checked} live runs out of {total}")


def _show(misfit: Misfit) -> None:
    """The problem, then what to do; a command is never broken, so that it can be copied."""
    for line in textwrap.wrap(
        one_line(misfit.problem), _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    ):
        give(line)
    for remedy in misfit.remedies:
        give(f"    {one_line(remedy)}")
    if misfit.run_ids:
        others = misfit.many - len(misfit.run_ids)
        for run_id in misfit.run_ids:
            give(f"    run {run_id}")
        if others:
            give(f"    and {others} more runs" if others > 1 else "    and 1 more run")
