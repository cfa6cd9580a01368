"""follow: a run's journal from an event on, for callers that follow it as it grows, and how each event is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select

from runclaim.ledger.read import event_view
from runclaim.models import events
from runclaim.sql.clock import rfc3339
from runclaim.sql.rowset import Id

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.ledger.read import EventView

# A run's events have ascending ids in the order of their commits: its row is locked when they are written.
_AFTER: Final = (
    select(events)
    .where(events.c.run_id == bindparam("its_id", type_=Id()), events.c.id > bindparam("after"))
    .order_by(events.c.id)
    .limit(bindparam("at_most"))
)


def journal_after(conn: Connection, run_id: str, *, after: int, limit: int = 100) -> list[EventView]:
    """At most `limit` of the run's events that come after the event `after` (0: from the first)."""
    found = conn.execute(_AFTER, {"its_id": run_id, "after": after, "at_most": limit})
    return [event_view(row) for row in found]


def event_json(event: EventView) -> dict[str, Any]:
    """The event as the command line and the HTTP API show it; a traceback is only for people who read the ledger."""
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
