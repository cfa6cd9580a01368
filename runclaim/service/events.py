"""Events: a run's journal as it grows, and each event as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runclaim.ledger.doors.follow import journal_after
from runclaim.ledger.doors.run_pages import run_line
from runclaim.sql.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from runclaim.ledger.read import EventView
    from runclaim.states import RunState


@dataclass(frozen=True, slots=True)
class NewEvents:
    """Events after one that was seen, and the run's state before they were read; `None` when there is no such run."""

    events: Sequence[EventView]
    state: RunState | None


def events_after(conn: Connection, run_id: str, *, after: int, limit: int = 100) -> NewEvents:
    """
    At most `limit` of a run's events after the event `after` (0: from the first).

    Whatever made the state is in the journal by then: a run that has ended and has no newer event has no more.
    """
    line = run_line(conn, run_id)
    return NewEvents(journal_after(conn, run_id, after=after, limit=limit), None if line is None else line.state)


def event_json(event: EventView) -> dict[str, Any]:
    """The event without a traceback, which is only for people who read the ledger."""
    data = event.data
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name != "traceback"}
    return {
        "id": event.id,
        "type": event.type,
        "phase": event.phase,
        "attempt": event.attempt,
        "data": data,
        "at": rfc3339(event.at),
    }
