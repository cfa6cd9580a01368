"""The journal: one row for each thing that happens to a run, in the transition's own transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Integer, Text, insert, select, true

from runclaim.clock import now
from runclaim.keys import check_text
from runclaim.models import events
from runclaim.rowset import Id, as_json, pack, rowset
from runclaim.secrets import refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from runclaim.events import EventType


_entries: Final = rowset(
    "entries", run_id=Id(), type=Text(), phase=Text(), attempt=Integer(), fence=BigInteger(), data=Text()
)
_APPEND: Final = insert(events).from_select(
    ["run_id", "type", "phase", "attempt", "fence", "data", "at"],
    select(
        _entries.c.run_id,
        _entries.c.type,
        _entries.c.phase,
        _entries.c.attempt,
        _entries.c.fence,
        as_json(_entries.c.data),
        now(),
    ).where(true()),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event to append; `fence` is the run's fence after the transition."""

    run_id: str
    type: EventType
    fence: int
    phase: str | None = None
    attempt: int | None = None
    data: Any = None


def told_by(by: str) -> dict[str, str]:
    """The data of an event that somebody asked for. Raises: InputError, before anything is written."""
    if by:
        refuse_secrets("by", check_text("by", by))
    return {"by": by}


def append(conn: Connection, entries: Iterable[Entry]) -> None:
    """Append `entries` in their order. Nothing happens when there are none."""
    rows = [
        {
            "run_id": entry.run_id,
            "type": entry.type,
            "phase": entry.phase,
            "attempt": entry.attempt,
            "fence": entry.fence,
            "data": None if entry.data is None else json.dumps(entry.data),
        }
        for entry in entries
    ]
    if rows:
        conn.execute(_APPEND, {"entries": pack(rows)})
