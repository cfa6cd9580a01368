"""
tail: the journal in its order, read as it grows, and nothing skipped.

On PostgreSQL an event gets its id before its transaction commits, so a lower id may appear after a higher one was
read. Every writer of events locks their table before the first id is given and until its transaction has ended: ids up
to `newest` are settled once every transaction that was among `writers` afterwards has gone. Read `newest`, then
`writers` until they are gone, then `after`, each in a transaction of its own, whose snapshot sees what had ended. On
SQLite transactions commit one after the other, and there is nothing to wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, bindparam, func, select, text

from runclaim.models import events, runs

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

_NEWEST: Final = select(func.coalesce(func.max(events.c.id), 0))
_WRITERS: Final = text(
    "SELECT DISTINCT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND granted"
    " AND mode = 'RowExclusiveLock' AND relation = CAST('runclaim_events' AS regclass)"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND pid IS DISTINCT FROM pg_backend_pid()"
)
#: The columns of a `Line`, in its order.
LINE: Final = (
    events.c.id,
    events.c.run_id,
    events.c.type,
    events.c.phase,
    events.c.attempt,
    events.c.fence,
    events.c.data,
    events.c.at,
    runs.c.project,
    runs.c.flow,
    runs.c.key,
    runs.c.subject,
    runs.c.trace_context,
    runs.c.enqueued_at,
)
_AFTER: Final = (
    select(*LINE)
    .join_from(events, runs, runs.c.id == events.c.run_id)
    .where(events.c.id > bindparam("cursor", type_=BigInteger()), events.c.id <= bindparam("upto", type_=BigInteger()))
    .order_by(events.c.id)
    .limit(bindparam("at_most"))
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the journal, with what tells its run."""

    id: int
    run_id: str
    type: str
    phase: str | None
    attempt: int | None
    fence: int
    data: Any
    at: datetime
    project: str
    flow: str
    key: str
    subject: str | None
    trace_context: dict[str, str] | None
    enqueued_at: datetime


def newest(conn: Connection) -> int:
    """The highest id that is committed; 0 for an empty journal."""
    return int(conn.execute(_NEWEST).scalar_one())


def writers(conn: Connection) -> frozenset[str]:
    """The open transactions that may have written events which no other session sees yet."""
    if conn.dialect.name != "postgresql":
        return frozenset()
    return frozenset(conn.execute(_WRITERS).scalars())


def after(conn: Connection, cursor: int, upto: int, *, limit: int) -> list[Line]:
    """At most `limit` events after `cursor`, up to `upto`, in their order."""
    rows: Any = conn.execute(_AFTER, {"cursor": cursor, "upto": upto, "at_most": limit})
    return [Line(*row) for row in rows]
