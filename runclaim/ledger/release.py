"""release: a worker that shuts down gives its claims back, and the attempts with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import case, null, update

from runclaim.events import EventType
from runclaim.ledger.fence import UNHELD, held, locked, proofs, state
from runclaim.ledger.journal import Entry, append, who_canceled
from runclaim.models import runs
from runclaim.sql.clock import now
from runclaim.sql.rowset import pack
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from runclaim.ledger.fence import Claim

_given: Final = proofs("given")
_canceled: Final = runs.c.cancel_requested_at.is_not(None)
_RELEASE: Final = {
    pass_over: update(runs)
    .where(held(locked(_given, held(_given), pass_over=pass_over)))
    .values(
        state=case((_canceled, state(RunState.CANCELED)), else_=state(RunState.QUEUED)),
        fence=runs.c.fence + 1,
        **UNHELD,
        # A deploy uses up no attempt.
        attempts=runs.c.attempts - 1,
        available_at=now(),
        dispatch_due_at=now(),
        dispatches=0,
        finished_at=case((_canceled, now()), else_=null()),
    )
    .returning(runs.c.id, runs.c.state, runs.c.fence)
    for pass_over in (False, True)
}


def release(conn: Connection, claims: Collection[Claim], *, pass_over: bool = False) -> dict[str, RunState]:
    """
    Give back each claim that is still current; its run is due for dispatch at once.

    Returns: run id → the run's state now. A run that is missing lost its claim, or with `pass_over` has a row that
    another transaction holds. The caller owns the transaction.
    """
    by_run = {claim.run_id: claim for claim in claims}
    found = conn.execute(_RELEASE[pass_over], {"given": pack(claim.proof() for claim in claims)}).all()
    canceled_by = who_canceled(conn, [run_id for run_id, after, _ in found if after == RunState.CANCELED])
    entries = []
    for run_id, after, fence in found:
        entries.append(Entry(run_id, EventType.PHASE_RELEASED, fence, by_run[run_id].phase, by_run[run_id].attempt))
        if after == RunState.CANCELED:
            entries.append(Entry(run_id, EventType.RUN_CANCELED, fence, data={"by": canceled_by.get(run_id, "")}))
    append(conn, entries)
    return {run_id: RunState(after) for run_id, after, _ in found}
