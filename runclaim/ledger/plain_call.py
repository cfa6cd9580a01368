"""
plain_call: make a key's run or find it, and claim it, in one transaction.

For code that does its work itself, without a worker: no other process will start the run, so what prevents a claim is
looked at here. A claim of the run that has lapsed is given back first; there may be no beat where such code runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.ledger import read
from runclaim.ledger.claim import ClaimRequest, claim
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.rescue import rescue_run
from runclaim.states import RunState

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection

    from runclaim.ledger.fence import Claim
    from runclaim.ledger.new_run import NewRun


def take(
    conn: Connection, run: NewRun, *, owner: str, worker: str, lease: timedelta, max_duration: timedelta
) -> Claim | None:
    """
    Claim the first phase of the key's run, or return `None` if it is done, claimed, stopped, or not due.

    `owner` is a fresh nonce: what `claimed` reads an ambiguous commit back by. The caller owns the transaction.
    Raises: KeyConflict.
    """
    found = enqueue(conn, [run])[0]
    if not found.created:
        rescue_run(conn, found.run_id)
    standing = read.standing(conn, found.run_id)
    if standing is None or standing.state is not RunState.QUEUED:
        return None
    wanted = ClaimRequest(found.run_id, standing.fence, owner)
    taken = claim(
        conn,
        [wanted],
        flow=run.flow,
        phase=run.phases[0],
        worker=worker,
        lease=lease,
        max_duration=max_duration,
        max_attempts=run.max_attempts,
        max_losses=run.max_losses,
    )
    return taken[0] if taken else None
