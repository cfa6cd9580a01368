"""The journal: one row for each thing that happens to a run, in the transition's own transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Integer, Text, case, column, func, insert, literal, null, or_, select, true

from runclaim.events import EventType
from runclaim.keys import check_text
from runclaim.models import events
from runclaim.secrets import refuse_secrets
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, Json, as_id, as_json, few, pack, rowset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import ColumnElement, Connection, FromClause, Insert, Select

    from runclaim.states import RunState

#: In an event's data: the nonce of the call that wrote it, by which that call is read back.
CALL: Final = "call"
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


#: The columns of a run's `entries`; their run is the one that moves.
_ENTRY_COLUMNS: Final = (
    column("number", Integer()),
    column("type", Text()),
    column("phase", Text()),
    column("attempt", Integer()),
    column("fence", BigInteger()),
    column("data", Json()),
    column("after", Text()),
)
_asked: Final = few(rowset("asked", run_id=Id()))
_REQUESTS: Final = (
    select(events.c.run_id, events.c.data)
    .join_from(events, _asked, events.c.run_id == _asked.c.run_id)
    .where(events.c.type == EventType.RUN_CANCEL_REQUESTED.value)
    .order_by(events.c.id)
)
_OF_RUNS: Final = (
    select(events.c.run_id, events.c.type, events.c.phase, events.c.attempt, events.c.fence, events.c.data)
    .join_from(events, _asked, events.c.run_id == _asked.c.run_id)
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


def shown_data(data: Any) -> Any:
    """The data of an event without the nonce of the call that wrote it, which only that call may know."""
    return {name: value for name, value in data.items() if name != CALL} if isinstance(data, dict) else data


def request_data(by: str, call: str = "") -> dict[str, str]:
    """
    The data of an event that a person or program asked for; `call` is a nonce by which `entries_of` finds it.

    Raises: InputError, before anything is written.
    """
    if by:
        refuse_secrets("by", check_text("by", by))
    return {"by": by} | ({CALL: call} if call else {})


def entries_of(conn: Connection, run_ids: Collection[str], *, call: str) -> list[Entry]:
    """
    Read back: what the transaction with this nonce has written about these runs; empty when it has not committed.

    The state of a run does not say who moved it there: it may have moved on since, or been moved by another caller.
    """
    found = conn.execute(_OF_RUNS, {"asked": pack({"run_id": as_id(run_id)} for run_id in run_ids)})
    return [
        Entry(row.run_id, EventType(row.type), row.fence, row.phase, row.attempt, row.data)
        for row in found
        if isinstance(row.data, dict) and row.data.get(CALL) == call
    ]


def beside(
    moved: FromClause,
    *,
    run_id: ColumnElement[str],
    state: ColumnElement[str],
    attempt: ColumnElement[int] | None = None,
) -> Insert:
    """
    The INSERT that shares the transition's statement on PostgreSQL: it appends the entries whose state was reached.

    `moved` has the id, the state and the `entries` (see `packed_entries`) of each run that moved; `attempt` is for
    entries that name none.
    """
    entries = func.jsonb_to_recordset(as_json(moved.c.entries)).table_valued(*_ENTRY_COLUMNS)
    found = entries.render_derived(name="told", with_types=True).lateral()
    mine: ColumnElement[int] = found.c.attempt
    if attempt is not None:
        mine = case((found.c.phase.is_not(None), func.coalesce(mine, attempt)), else_=null())
    return insert(events).from_select(
        ["run_id", "type", "phase", "attempt", "fence", "data", "at"],
        select(run_id, found.c.type, found.c.phase, mine, found.c.fence, _data(found, run_id), now())
        .select_from(moved.join(found, true()))
        .where(or_(found.c.after.is_(None), found.c.after == state))
        .order_by(found.c.number),
    )


def _data(found: FromClause, run_id: ColumnElement[str]) -> ColumnElement[Any]:
    """An entry's data; who asked for the cancel that a transition has found is not known before it."""
    request = (
        select(events.c.data)
        .where(events.c.run_id == run_id, events.c.type == EventType.RUN_CANCEL_REQUESTED.value)
        .order_by(events.c.id.desc())
        .limit(1)
        .scalar_subquery()
        .correlate_except(events)
    )
    given: ColumnElement[Any] = found.c.data
    with_request = given.op("||")(func.coalesce(request, as_json(literal("{}"))))
    return case((found.c.type == EventType.RUN_CANCELED.value, with_request), else_=given)


def append_of(rows: Select[Any]) -> Insert:
    """For one statement with the transition itself: an event for each of `rows`, which are run, type, fence, data."""
    return insert(events).from_select(["run_id", "type", "fence", "data", "at"], rows.add_columns(now()))


def packed_entries(entries: Iterable[tuple[Entry, RunState | None]]) -> str:
    """A run's `entries`: each with the state of the run in which it comes true, `None` for any."""
    rows = []
    for number, (entry, after) in enumerate(entries):
        row = {"number": number, "type": entry.type, "fence": entry.fence, "data": entry.data, "after": after}
        rows.append(row | {"phase": entry.phase, "attempt": entry.attempt})
    return json.dumps(rows)


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
