"""`runclaim runs tail`: a run's journal as it is written, then what the run gave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from runclaim.cli.option_types import Identifier
from runclaim.cli.options import json_option, on_the_ledger
from runclaim.cli.runs.wait import require_success
from runclaim.cli.terminal import give, give_json, give_output, is_terminal, one_line

if TYPE_CHECKING:
    from runclaim.cli.backend import Backend, Json

_WIDTH: Final = len("phase.completed")
#: The time of the day, without microseconds, in RFC 3339.
_CLOCK: Final = slice(len("2026-11-21T"), len("2026-11-21T17:00:00"))


@click.command()
@click.argument("run_id", metavar="ID", type=Identifier("run"))
@json_option
@on_the_ledger
def command(*, backend: Backend, run_id: str, as_json: bool) -> None:
    """
    Follow the events of a run until it ends, then print its result or error.

    With --json, each line is one event, which has a `type`; the last line is the run, which has a `state`. Exits with
    0 if the run succeeded, and with 7 if it ended otherwise or is blocked.
    """
    for event in backend.follow(run_id):
        if as_json:
            give_json(event)
        else:
            give(_line(event))
    run = backend.run(run_id)
    if as_json:
        give_json(run)
    require_success(run)
    if not as_json:
        give_output(run["result"])


def _line(event: Json) -> str:
    """Time, type, phase, attempt and what else is told; in a pipe the whole time, and tabs between."""
    attempt = "" if event["attempt"] is None else f"attempt {event['attempt']}"
    cells = event["at"], event["type"], event["phase"] or "", attempt, _told(event["data"])
    at, kind, *others = (one_line(cell) for cell in cells)
    if is_terminal():
        return "  ".join(cell for cell in (at[_CLOCK], kind.ljust(_WIDTH), *others) if cell).rstrip()
    return "\t".join((at, kind, *others))


def _told(data: Any) -> str:
    if not isinstance(data, dict):
        return "" if data is None else json.dumps(data)
    if "message" in data:
        return f"{data.get('type')}: {data['message']}"
    return ", ".join(f"{name} {value}" for name, value in data.items() if value)
