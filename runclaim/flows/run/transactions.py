"""
The transactions that end attempts: each goes into the ledger whole, or not at all.

The application's rows come first and the CAS last. A completion whose claim is lost rolls everything back. A
commit whose answer is lost is read back by its claim; it is never assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError

from runclaim import failpoints, logs
from runclaim.errors import ClaimLost
from runclaim.events import EventType
from runclaim.flows.run.application_writes import CompletionFailed, Writes
from runclaim.flows.run.ending import Ended, Ending
from runclaim.ledger import read
from runclaim.ledger.complete import complete, completed
from runclaim.ledger.completion import Completion, Moved, NextPhase
from runclaim.ledger.fail import Failure, Verdict, fail
from runclaim.ledger.release import release
from runclaim.sql.trouble import Trouble, is_of_data, trouble
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from runclaim.database import Database
    from runclaim.ledger.actions.plan import Hooks
    from runclaim.ledger.fence import Claim

logger: Final = logs.logger("runclaim.runner")

_VERDICTS: Final = {
    Ending.RETRY: Verdict.RETRY,
    # The ledger ends it as canceled, because that was asked.
    Ending.CANCELED: Verdict.RETRY,
    Ending.FAILURE: Verdict.FAIL,
    Ending.BLOCKED: Verdict.BLOCK,
}


@dataclass(frozen=True, slots=True)
class Success:
    """An attempt that ended well, and where its run goes next."""

    claim: Claim
    ended: Ended
    next_phase: NextPhase | None

    def completion(self, worker: str) -> Completion:
        """What the ledger records of it."""
        ended = self.ended
        return Completion(
            self.claim,
            ended.result,
            worker,
            ended.ran,
            self.next_phase,
            ended.skipped,
            ended.findings,
            ended.actions,
            ended.output_ref,
        )


def record(
    database: Database, successes: Sequence[Success], *, worker: str, patience: float, pass_over: bool = False
) -> dict[str, Moved]:
    """
    Complete the phases, with their rows, in one commit. `patience` is in seconds: as long as the leases can last.

    Returns: run id → what happened. A run that is missing lost its claim, or with `pass_over` has a row that another
    transaction holds, and nothing of it was written. What writes rows of the application comes alone. Raises: ClaimLost
    when that one lost its claim (its rows are rolled back), CompletionFailed when one of its functions raised,
    LedgerUnavailable and LedgerRefused when the ledger took nothing for this long: the bodies have ended well.
    """
    completions = [each.completion(worker) for each in successes]
    writes = Writes([write for each in successes for write in each.ended.writes])

    def work(conn: Connection) -> dict[str, Moved]:
        writes.write(conn)
        failpoints.hit("complete.before_cas")
        if at_once:
            failpoints.hit("complete.before_commit")
            return complete(conn, completions, pass_over=pass_over)
        moved = complete(conn, completions, pass_over=pass_over)
        if writes.functions and not moved:
            lost = successes[0].claim
            raise ClaimLost(lost.run_id, lost.phase, lost.fence)
        failpoints.hit("complete.before_commit")
        writes.commit(conn)
        return moved

    def read_back(conn: Connection) -> dict[str, Moved] | None:
        return completed(conn, completions) or None

    def is_waited_out(error: BaseException) -> bool:
        # What one run of a group cannot write is found out by settling each alone.
        is_sure = len(successes) == 1 or trouble(error) is Trouble.REFUSED
        return is_sure and not writes.raised(error) and _may_pass(error)

    # One statement, unless something else is written with the completion.
    at_once = not (writes.functions or any(each.findings or each.actions for each in completions))
    try:
        moved = database.run(work, read_back=read_back, patience=patience, at_once=at_once, outwaits=is_waited_out)
    except Exception as error:
        if writes.error is not None and writes.raised(error):
            raise CompletionFailed(writes.error) from writes.error
        raise
    failpoints.hit("complete.after_commit")
    return moved


def _may_pass(error: BaseException) -> bool:
    """Whether the ledger may take the same at another time: then a body that has ended keeps trying."""
    return not (isinstance(error, DBAPIError) and is_of_data(error))


def give_up(
    database: Database, claim: Claim, ended: Ended, *, hooks: Hooks, worker: str, patience: float
) -> RunState | None:
    """
    End an attempt that has no result; `hooks` says what is planned for a run that stops here.

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

    return database.run(work, read_back=read_back, patience=patience, outwaits=_may_pass).get(claim.run_id)


def give_back(database: Database, claims: Sequence[Claim], *, patience: float) -> set[str]:
    """
    Release claims whose bodies have not begun; returns the runs that are queued again.

    One whose row another transaction holds is left to lapse: it holds up none of the others.
    """
    states = database.run(lambda conn: release(conn, claims, pass_over=True), patience=patience)
    return {run_id for run_id, state in states.items() if state is RunState.QUEUED}
