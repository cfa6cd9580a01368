"""
put_back: a message reached a worker that does not have its task; its run is due for dispatch again soon.

The dispatch that sent it does not count, so a release that lacks a phase doubles no run's spacing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, Double, Text, and_, bindparam, case, update

from runclaim.ledger.fence import locked, stands_in
from runclaim.models import runs
from runclaim.sql.clock import earlier, now, shifted
from runclaim.sql.rowset import Id, as_id, few, pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from sqlalchemy import Connection

_named: Final = few(rowset("named", run_id=Id(), seen=BigInteger()))
_is_named: Final = and_(runs.c.id == _named.c.run_id, stands_in(RunState.QUEUED), runs.c.fence == _named.c.seen)
_returned: Final = locked(_named, _is_named, pass_over=True)
_soon: Final = shifted(now(), bindparam("delay_seconds", type_=Double()))
_PUT_BACK: Final = (
    update(runs)
    .where(
        runs.c.id == _returned.c.run_id,
        stands_in(RunState.QUEUED),
        runs.c.fence == _returned.c.seen,
        runs.c.available_at <= now(),
        runs.c.flow.concat(".").concat(runs.c.phase) == bindparam("its_task", type_=Text()),
    )
    .values(
        dispatches=case((runs.c.dispatches > 0, runs.c.dispatches - 1), else_=0),
        dispatch_due_at=earlier(runs.c.dispatch_due_at, _soon),
    )
    .returning(runs.c.id)
)


def put_back(conn: Connection, named: Collection[tuple[str, int]], *, task: str, delay: timedelta) -> set[str]:
    """
    Let the runs that a message of `task` named be dispatched again after `delay`, if they have not moved on.

    `named` are pairs of a run's id and the fence that the message was sent at. Returns: the runs that are due again.
    The caller owns the transaction.
    """
    rows = [{"run_id": as_id(run_id), "seen": fence} for run_id, fence in named]
    values = {"named": pack(rows), "its_task": task, "delay_seconds": delay.total_seconds()}
    return set(conn.execute(_PUT_BACK, values).scalars())
