"""
move_phase: live runs that have not completed a phase go on with its new name.

A phase list is pinned, so nothing but this changes it. The run keeps its state and its fence: a claim, a completion and
a cancel decide as before, and of a claim and a move of one run the first to write counts. A run that is running is left
alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Integer, Text, and_, bindparam, case, literal_column, select, update

from runclaim.events import EventType
from runclaim.ledger.dispatch import MESSAGE, Due
from runclaim.ledger.doors.pinned_runs import LIST, NEW, OLD
from runclaim.ledger.fence import locked, stands_in, state
from runclaim.ledger.journal import Entry, append, entries_of, request_data
from runclaim.models import acts, runs, sessions
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, as_json, few, pack, rowset
from runclaim.states import LIVE, RunState

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ColumnElement, Connection, FromClause

    from runclaim.ledger.doors.pinned_runs import PhaseMove, Pinned


_moved: Final = few(
    rowset("moved", run_id=Id(), seen=BigInteger(), cursor=Integer(), before=Text(), phases=Text(), phase=Text())
)
_may_move: Final = runs.c.state.concat(literal_column("''", Text())).in_(
    [state(each) for each in sorted(LIVE - {RunState.RUNNING})]
)


def _as_seen(pinned: FromClause) -> ColumnElement[bool]:
    """Whether a run is still as it was read, and without a claim."""
    return and_(
        runs.c.id == pinned.c.run_id,
        runs.c.fence == pinned.c.seen,
        runs.c.cursor == pinned.c.cursor,
        # Another move of it raises no fence.
        pinned.c.before == LIST,
        _may_move,
    )


_locked: Final = locked(_moved, _as_seen(_moved))
_is_current: Final = runs.c.phase == OLD
_is_queued: Final = and_(_is_current, stands_in(RunState.QUEUED))


def _budget(spent: ColumnElement[int], given: str) -> ColumnElement[int]:
    """What the new phase has, and one more than was spent: a run that can never be claimed would wait for ever."""
    mine = bindparam(given, type_=Integer())
    return case((mine > spent, mine), else_=spent + 1)


_MOVE: Final = (
    update(runs)
    .where(_as_seen(_locked))
    .values(
        phases=as_json(_locked.c.phases),
        phase=_locked.c.phase,
        queue=case((_is_current, bindparam("its_queue", type_=Text())), else_=runs.c.queue),
        max_attempts=case((_is_current, _budget(runs.c.attempts, "its_attempts")), else_=runs.c.max_attempts),
        max_losses=case((_is_current, _budget(runs.c.losses, "its_losses")), else_=runs.c.max_losses),
        # Its message has the old name: it is sent once more.
        dispatches=case((_is_queued, 0), else_=runs.c.dispatches),
        dispatch_due_at=case(
            (and_(_is_queued, runs.c.available_at > now()), runs.c.available_at),
            (_is_queued, now()),
            else_=runs.c.dispatch_due_at,
        ),
    )
    .returning(runs.c.id, runs.c.fence)
)
_theirs: Final = few(rowset("theirs", run_id=Id()))
#: What a body has begun under the old name is found under the new one.
_CARRY: Final = [
    update(each).where(each.c.run_id.in_(select(_theirs.c.run_id)), each.c.phase == OLD).values(phase=NEW)
    for each in (acts, sessions)
]
_DUE: Final = select(*MESSAGE, (runs.c.attempts + runs.c.losses > 0).label("alone")).join_from(
    _theirs, runs, and_(runs.c.id == _theirs.c.run_id, stands_in(RunState.QUEUED), runs.c.available_at <= now())
)


def move_phase(
    conn: Connection,
    move: PhaseMove,
    pinned: Collection[Pinned],
    *,
    queue: str | None,
    max_attempts: int,
    max_losses: int,
    by: str = "",
    call: str = "",
) -> list[str]:
    """
    Give the phase its new name in those of `pinned` that are still as they were read; returns those.

    `queue` and the budgets are the new phase's; a run that is at it gets them. The caller owns the transaction, and
    after an ambiguous commit asks `moved` with the same nonce `call`.
    """
    data = {"from": move.old, "to": move.new} | request_data(by, call)
    rows = [_row(move, each) for each in pinned]
    names = {"its_old": move.old, "its_new": move.new}
    values = names | {"its_queue": queue, "its_attempts": max_attempts, "its_losses": max_losses}
    fences: dict[str, int] = dict(conn.execute(_MOVE, values | {"moved": pack(rows)}).all())
    if fences:
        for statement in _CARRY:
            conn.execute(statement, names | {"theirs": pack({"run_id": each} for each in fences)})
    append(conn, [Entry(each, EventType.RUN_PHASE_MOVED, fence, data=data) for each, fence in fences.items()])
    return list(fences)


def _row(move: PhaseMove, pinned: Pinned) -> dict[str, Any]:
    phases = [move.new if name == move.old else name for name in json.loads(pinned.phases)]
    return {
        "run_id": pinned.run_id,
        "seen": pinned.fence,
        "cursor": pinned.cursor,
        "before": pinned.phases,
        "phases": json.dumps(phases),
        "phase": phases[pinned.cursor],
    }


def moved(conn: Connection, run_ids: Collection[str], *, call: str) -> list[str]:
    """Read back: the answer of the `move_phase` that was given this nonce."""
    return [each.run_id for each in entries_of(conn, run_ids, call=call)]


def due(conn: Connection, run_ids: Collection[str]) -> list[Due]:
    """The messages of those of the runs that are due now."""
    found = conn.execute(_DUE, {"theirs": pack({"run_id": each} for each in run_ids)})
    return [
        Due(run_id, fence, flow, phase, queue, key, priority, alone=bool(alone))
        for run_id, fence, flow, phase, queue, key, priority, alone in found
    ]
