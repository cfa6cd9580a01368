"""
rescue: claims whose lease lapsed, or whose process is known to be dead, are given back.

Any number of rescuers may run: rows are locked under SKIP LOCKED, and the UPDATE checks again what the
SELECT saw. A loss has a budget of its own, separate from the attempts: a body that kills its process stops soon.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, bindparam, case, literal, null, or_, select, update

from runclaim.events import EventType
from runclaim.ledger.actions.plan import Hooks, Stopped, add_actions_once
from runclaim.ledger.fence import UNHELD, in_state, stands_in, state
from runclaim.ledger.journal import Entry, append, who_canceled
from runclaim.models import runs
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, as_json, pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement, Connection, Select, Update

_LOST: Final = '{"type":"WorkerLost","message":"the worker died or stalled in this phase, and the budget is spent"}'
_canceled: Final = runs.c.cancel_requested_at.is_not(None)
_spent: Final = or_(runs.c.attempts >= runs.c.max_attempts, runs.c.losses + 1 >= runs.c.max_losses)


_picked: Final = rowset("picked", run_id=Id())


def _rescue(which: ColumnElement[bool]) -> tuple[Select[Any], Update]:
    """The statements for the running rows that `which` selects: lock them, with who held them, and give them back."""
    pick = (
        select(runs.c.id, runs.c.worker)
        # All that run have a deadline: said for the index.
        .where(in_state(RunState.RUNNING), runs.c.deadline_at.is_not(None), which)
        .order_by(runs.c.lease_expires_at)
        .limit(bindparam("at_most"))
        .with_for_update(skip_locked=True, key_share=True)
    )
    give_back = (
        update(runs)
        .where(runs.c.id == _picked.c.run_id, stands_in(RunState.RUNNING), which)
        .values(
            state=case(
                (_canceled, state(RunState.CANCELED)), (_spent, state(RunState.FAILED)), else_=state(RunState.QUEUED)
            ),
            fence=runs.c.fence + 1,
            **UNHELD,
            losses=runs.c.losses + 1,
            error=case((_canceled, runs.c.error), (_spent, as_json(literal(_LOST))), else_=runs.c.error),
            available_at=now(),
            dispatch_due_at=now(),
            dispatches=0,
            finished_at=case((or_(_canceled, _spent), now()), else_=null()),
        )
        .returning(runs.c.id, runs.c.state, runs.c.fence, runs.c.phase, runs.c.attempts, runs.c.flow, runs.c.key)
    )
    return pick, give_back


# The clock in a sub-select is read once and not for each row; the UPDATE reads it again.
_LAPSED: Final = _rescue(runs.c.lease_expires_at <= select(now()).scalar_subquery())
_LAPSED_RUN: Final = _rescue(
    and_(runs.c.id == bindparam("its_id", type_=Id()), runs.c.lease_expires_at <= select(now()).scalar_subquery())
)
_HELD_BY: Final = _rescue(and_(runs.c.worker == bindparam("of_worker")))


def _none(_stopped: Stopped) -> tuple[()]:
    return ()


def rescue(conn: Connection, *, limit: int = 100, hooks: Hooks = _none) -> dict[str, RunState]:
    """
    Give back at most `limit` claims whose lease has lapsed, the oldest first.

    `hooks` tells what to plan for a run whose budget is spent.

    Returns: run id → the run's state now. The caller owns the transaction.
    """
    return _give_back(conn, _LAPSED, {"at_most": limit}, "its lease lapsed", hooks)


def rescue_run(conn: Connection, run_id: str) -> dict[str, RunState]:
    """As `rescue`, for the claim of one run."""
    return _give_back(conn, _LAPSED_RUN, {"at_most": 1, "its_id": run_id}, "its lease lapsed", _none)


def rescue_worker(conn: Connection, worker: str, *, limit: int = 1000, hooks: Hooks = _none) -> dict[str, RunState]:
    """As `rescue`, for the claims of a process (`node:pid`) that its parent has seen die; no lease is waited for."""
    return _give_back(conn, _HELD_BY, {"at_most": limit, "of_worker": worker}, "its worker died", hooks)


def _give_back(
    conn: Connection, statements: tuple[Select[Any], Update], values: dict[str, Any], why: str, hooks: Hooks
) -> dict[str, RunState]:
    pick, give_back = statements
    held_by: dict[str, str] = dict(conn.execute(pick, values).all())
    if not held_by:
        return {}
    picked = pack({"run_id": run_id} for run_id in held_by)
    rows = conn.execute(give_back, values | {"picked": picked}).all()
    canceled_by = who_canceled(conn, [run_id for run_id, after, *_ in rows if after == RunState.CANCELED])

    def entries() -> Iterator[Entry]:
        for run_id, after, fence, phase, attempt, *_ in rows:
            lost = {"why": why, "worker": held_by[run_id]}
            yield Entry(run_id, EventType.PHASE_RESCUED, fence, phase, attempt, lost)
            if after == RunState.FAILED:
                yield Entry(run_id, EventType.RUN_FAILED, fence, phase, data=lost)
            elif after == RunState.CANCELED:
                yield Entry(run_id, EventType.RUN_CANCELED, fence, data={"by": canceled_by.get(run_id, "")})

    append(conn, entries())
    failed = [
        Stopped(run_id, flow, key, phase, RunState.FAILED, json.loads(_LOST))
        for run_id, after, _fence, phase, _attempt, flow, key in rows
        if after == RunState.FAILED
    ]
    add_actions_once(conn, [hook for each in failed for hook in hooks(each)])
    return {run_id: RunState(after) for run_id, after, *_ in rows}
