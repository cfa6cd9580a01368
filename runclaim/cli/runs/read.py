"""`runclaim runs status` and `list`: what the ledger says, changing nothing."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from runclaim.cli.backend import Filter
from runclaim.cli.option_types import Identifier, Moment
from runclaim.cli.options import json_option, on_the_ledger, project_option
from runclaim.cli.runs.render import show
from runclaim.cli.terminal import Table, give_json, is_terminal, say
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runclaim.cli.backend import Backend, Json

_SECOND: Final = len("2026-11-21T17:00:00")
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


@click.command()
@click.argument("run_id", metavar="ID", type=Identifier("run"))
@json_option
@on_the_ledger
def status(*, backend: Backend, run_id: str, as_json: bool) -> None:
    """
    Show one run: its phases, its error or its result.

    Exits with 0 whatever the state of the run; the exit code of `runclaim runs tail` says how a run ended.
    """
    run = backend.run(run_id)
    if as_json:
        give_json(run)
    else:
        show(run)


@click.command("list")
@project_option
@click.option("--flow", metavar="NAME", help="Runs of this flow.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in RunState]),
    help="Runs in this state; repeatable.",
)
@click.option(
    "--since",
    type=Moment(),
    help="Enqueued since this time, such as 2026-11-21T17:00:00Z, or 2h for the last two hours.",
)
@click.option("--until", type=Moment(), help="Enqueued before this time; same format.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show at most this many.")
@json_option
@on_the_ledger
def list_(
    *,
    backend: Backend,
    project: str | None,
    flow: str | None,
    states: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """
    List runs, newest first.

    In a pipe, each line is one run: id, state, flow, key, phase and enqueue time, separated by tabs.
    """
    wanted = Filter(project=project, flow=flow, states=states, since=since, until=until, limit=limit + 1)
    found = backend.runs(wanted)
    shown = itertools.islice(found, limit)
    if as_json:
        for run in shown:
            give_json(run)
    elif not _table().show(_rows(shown)):
        say("no runs")
    if next(found, None) is not None:
        say(f"there are more than {limit} runs; filter with --flow, --state, --since or --until, or raise --limit")


def _table() -> Table:
    return Table("id", "state", "flow", "key", "phase", "enqueued", flexible="key", state="state")


def _rows(runs: Iterable[Json]) -> Iterator[list[str]]:
    for run in runs:
        asked_to_stop = run["cancel_requested"] and run["state"] == "running"
        yield [
            run["id"],
            "canceling" if asked_to_stop else run["state"],
            run["flow"],
            run["key"],
            run["phase"],
            _ago(run["enqueued_at"]) if is_terminal() else f"{run['enqueued_at'][:_SECOND]}Z",
        ]


def _ago(moment: str) -> str:
    """How long ago by this machine's clock: `12s ago`, `5m ago`, `3h ago`, `2d ago`."""
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size or size == 1)
    return f"{seconds // size}{unit} ago"
