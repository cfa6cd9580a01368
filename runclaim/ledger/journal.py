"""The journal: one row for each thing that happens to a run, in the transition's own transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Integer, Text, case, func, insert, literal, null, or_, select, true

from runclaim.clock import now
from runclaim.events import EventType
from runclaim.keys import check_text
from runclaim.models import events
from runclaim.rowset import Id, as_json, pack, rowset
from runclaim.secrets import refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import ColumnElement, Connection, FromClause, Insert, Select

    from runclaim.states import RunState

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


_asked: Final = rowset("asked", run_id=Id())
# A limit that leaves nothing out: PostgreSQL expects a hundred runs without it, and reads all events to find one's.
_few: Final = select(_asked.c.run_id).limit(select(func.count()).select_from(_asked).scalar_subquery()).subquery("few")
_REQUESTS: Final = (
    select(events.c.run_id, events.c.data)
    .join_from(events, _few, events.c.run_id == _few.c.run_id)
    .where(events.c.type == EventType.RUN_CANCEL_REQUESTED.value)
    .order_by(events.c.id)
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


def who_canceled(conn: Connection, run_ids: Collection[str]) -> dict[str, str]:
    """Run id → who last asked to cancel it; asks nothing when there are none."""
    if not run_ids:
        return {}
    found = conn.execute(_REQUESTS, {"asked": pack({"run_id": run_id} for run_id in run_ids)})
    return {run_id: data["by"] for run_id, data in found}


def told_by(by: str) -> dict[str, str]:
    """The data of an event that somebody asked for. Raises: InputError, before anything is written."""
    if by:
        refuse_secrets("by", check_text("by", by))
    return {"by": by}


_written: Final = rowset(
    "written",
    number=Integer(),
    run_id=Id(),
    type=Text(),
    phase=Text(),
    attempt=Integer(),
    fence=BigInteger(),
    data=Text(),
    after=Text(),
)
_request: Final = (
    select(events.c.data)
    .where(events.c.run_id == _written.c.run_id, events.c.type == EventType.RUN_CANCEL_REQUESTED.value)
    .order_by(events.c.id.desc())
    .limit(1)
    .correlate(_written)
    .scalar_subquery()
)
_plain: Final = as_json(_written.c.data)
#: Who asked for the cancel that a transition has found is not known before it.
_data: Final = case(
    (_written.c.type == EventType.RUN_CANCELED.value, _plain.op("||")(func.coalesce(_request, as_json(literal("{}"))))),
    else_=_plain,
)


def beside(
    moved: FromClause,
    *,
    run_id: ColumnElement[str],
    state: ColumnElement[str],
    attempt: ColumnElement[int] | None = None,
) -> Insert:
    """
    For one statement with the transition itself: appends those entries of the parameter `written` that came true.

    `moved` has the id and the state of each run that moved; `attempt` is that of entries which name none.
    """
    mine: ColumnElement[int] = _written.c.attempt
    if attempt is not None:
        mine = case((_written.c.phase.is_not(None), func.coalesce(mine, attempt)), else_=null())
    return insert(events).from_select(
        ["run_id", "type", "phase", "attempt", "fence", "data", "at"],
        select(_written.c.run_id, _written.c.type, _written.c.phase, mine, _written.c.fence, _data, now())
        .join_from(_written, moved, _written.c.run_id == run_id)
        .where(or_(_written.c.after.is_(None), _written.c.after == state))
        .order_by(_written.c.number),
    )


def append_of(rows: Select[Any]) -> Insert:
    """For one statement with the transition itself: appends an event for each of `rows`: run, type and fence."""
    return insert(events).from_select(["run_id", "type", "fence", "at"], rows.add_columns(now()))


def written(entries: Iterable[tuple[Entry, RunState | None]]) -> list[dict[str, Any]]:
    """The rowset `written`: each entry with the state of its run in which it comes true, `None` for any."""
    return [_row(entry) | {"number": number, "after": after} for number, (entry, after) in enumerate(entries)]


def append(conn: Connection, entries: Iterable[Entry]) -> None:
    """Append `entries` in their order. Nothing happens when there are none."""
    rows = [_row(entry) for entry in entries]
    if rows:
        conn.execute(_APPEND, {"entries": pack(rows)})


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "run_id": entry.run_id,
        "type": entry.type,
        "phase": entry.phase,
        "attempt": entry.attempt,
        "fence": entry.fence,
        "data": None if entry.data is None else json.dumps(entry.data),
    }
