"""follow: a run's journal from an event on, for callers that follow it as it grows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from runclaim.ledger.read import event_view
from runclaim.models import events
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
