"""cancel: a run without a claim ends at once; a running one is asked to, and ends at its next ledger call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, case, func, null, or_, update

from runclaim.events import EventType
from runclaim.ledger.fence import in_state, locked, state
from runclaim.ledger.journal import Entry, append, entries_of, request_data
from runclaim.models import runs
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, as_id, few, pack, rowset
from runclaim.states import LIVE, RunState

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

_wanted: Final = few(rowset("named", run_id=Id()))
_running: Final = in_state(RunState.RUNNING)
_live: Final = in_state(*sorted(LIVE))
_named: Final = locked(_wanted, and_(runs.c.id == _wanted.c.run_id, _live))
_CANCEL: Final = (
    update(runs)
    .where(
        runs.c.id == _named.c.run_id,
        _live,
        # Asking twice changes nothing.
        or_(~_running, runs.c.cancel_requested_at.is_(None)),
    )
    .values(
        state=case((_running, runs.c.state), else_=state(RunState.CANCELED)),
        # A running claim stays valid until its worker has heard.
        fence=case((_running, runs.c.fence), else_=runs.c.fence + 1),
        cancel_requested_at=func.coalesce(runs.c.cancel_requested_at, now()),
        finished_at=case((_running, null()), else_=now()),
    )
    .returning(runs.c.id, runs.c.state, runs.c.fence)
)


_KINDS: Final = {RunState.CANCELED: EventType.RUN_CANCELED, RunState.RUNNING: EventType.RUN_CANCEL_REQUESTED}


def cancel(conn: Connection, run_ids: Collection[str], *, by: str = "", call: str = "") -> dict[str, RunState]:
    """
    Cancel each run that can be.

    Returns: run id → `canceled`, or `running` when its worker was asked to stop. A run that is missing had ended,
    was asked before, or does not exist. `by` goes into the journal. The caller owns the transaction, and after an
    ambiguous commit asks `canceled` with the same nonce `call`.
    """
    data = request_data(by, call)
    found = conn.execute(_CANCEL, {"named": pack({"run_id": as_id(run_id)} for run_id in run_ids)}).all()
    append(conn, [Entry(run_id, _KINDS[RunState(after)], fence, data=data) for run_id, after, fence in found])
    return {run_id: RunState(after) for run_id, after, _ in found}


def canceled(conn: Connection, run_ids: Collection[str], *, call: str) -> dict[str, RunState]:
    """Read back: the answer of the `cancel` that was given this nonce; empty when it changed nothing."""
    states = {kind: state for state, kind in _KINDS.items()}
    return {each.run_id: states[each.type] for each in entries_of(conn, run_ids, call=call)}
