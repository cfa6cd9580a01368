"""
Settling: an attempt's end goes into the ledger in one transaction, or not at all.

The application's rows come first and the CAS last. A completion whose claim is lost rolls everything back. A
commit whose answer is lost is read back by its claim; it is never assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.orm import Session

from runclaim import failpoints, logs
from runclaim.errors import ClaimLost, RunclaimError
from runclaim.events import EventType
from runclaim.flows.attempt import Ended, Ending
from runclaim.ledger import read
from runclaim.ledger.complete import Completion, Moved, NextPhase, complete, completed
from runclaim.ledger.fail import Failure, Verdict, fail
from runclaim.ledger.release import release

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from runclaim.database import Database
    from runclaim.ledger.claim import Claim
    from runclaim.ledger.planning import Hooks
    from runclaim.states import RunState

logger: Final = logs.logger("runclaim.runner")

_VERDICTS: Final = {
    Ending.RETRY: Verdict.RETRY,
    # The ledger ends it as canceled, because that was asked.
    Ending.CANCELED: Verdict.RETRY,
    Ending.FAILURE: Verdict.FAIL,
    Ending.BLOCKED: Verdict.BLOCK,
}


def record(
    database: Database, claim: Claim, ended: Ended, *, worker: str, following: NextPhase | None, patience: float
) -> Moved:
    """
    Complete the phase with its rows. `patience` is in seconds: as long as the lease can last.

    Raises: ClaimLost when another claim is current (nothing was written), whatever an application's function
    raises, and LedgerUnavailable.
    """
    completion = Completion(
        claim, ended.result, worker, ended.ran, following, ended.skipped, ended.findings, ended.actions
    )

    def work(conn: Connection) -> Moved:
        _write(conn, ended.writes)
        failpoints.hit("complete.before_cas")
        moved = complete(conn, [completion]).get(claim.run_id)
        if moved is None:
            raise ClaimLost(claim.run_id, claim.phase, claim.fence)
        failpoints.hit("complete.before_commit")
        return moved

    def read_back(conn: Connection) -> Moved | None:
        return completed(conn, [completion]).get(claim.run_id)

    # One statement, unless something is written beside the completion.
    alone = not (ended.writes or ended.findings or ended.actions)
    moved = database.run(work, read_back=read_back, patience=patience, at_once=alone)
    failpoints.hit("complete.after_commit")
    return moved


def _write(conn: Connection, writes: tuple[Callable[[Session], object], ...]) -> None:
    if not writes:
        return
    # rollback_only: a function that commits its session does not end the ledger's transaction.
    with Session(conn, join_transaction_mode="rollback_only", expire_on_commit=False) as session:
        for write in writes:
            write(session)
            if not conn.in_transaction():
                raise RunclaimError(
                    "a function handed to ctx.in_completion rolled its session back, and the completion with it:"
                    " use `with session.begin_nested():` around what may fail"
                )
        session.flush()
        # Closing would roll back; the ledger commits.
        session.commit()


def give_up(
    database: Database, claim: Claim, ended: Ended, *, hooks: Hooks, worker: str, patience: float
) -> RunState | None:
    """
    End an attempt that has no result; `hooks` tells what is planned for a run that stops here.

    Returns: the run's state now, or `None` when the claim was lost before: there is nothing to settle.
    """
    if ended.ending is Ending.CLAIMLOST:
        return None
    failure = Failure(claim, ended.error(), _VERDICTS.get(ended.ending, Verdict.RETRY), ended.delay, worker)
    released = ended.ending is Ending.RELEASED

    def work(conn: Connection) -> dict[str, RunState]:
        return release(conn, [claim]) if released else fail(conn, [failure], hooks=hooks)

    def read_back(conn: Connection) -> dict[str, RunState] | None:
        kind = EventType.PHASE_RELEASED if released else EventType.PHASE_FAILED
        state = read.settled(conn, claim.run_id, fence=claim.fence, kind=kind)
        return None if state is None else {claim.run_id: state}

    return database.run(work, read_back=read_back, patience=patience).get(claim.run_id)
