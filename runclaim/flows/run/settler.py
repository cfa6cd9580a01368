"""
The settler of a delivery: what has ended goes into the ledger, and runs that can start at once continue here.

Several completions share a commit. What a lost claim, a failed attempt or rows of the application would do to others
cannot happen: they are settled alone.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runclaim import logs
from runclaim.errors import ClaimLost, LedgerRefused, LedgerUnavailable
from runclaim.flows.messages import message
from runclaim.flows.run.application_writes import CompletionFailed
from runclaim.flows.run.ending import COMPLETE, Ended, Ending, ended_in_completion
from runclaim.flows.run.execution import Execution
from runclaim.flows.run.transactions import Success, give_up, record
from runclaim.keys import nonce
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.run.body import Watcher
    from runclaim.flows.run.execution import Inline
    from runclaim.flows.run.process import Process
    from runclaim.ledger.completion import Moved
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.fence import Claim

logger: Final = logs.logger("runclaim.runner")


class Settler:
    """Of one delivery; not safe across threads: the group holds its lock."""

    def __init__(self, process: Process, flow: DeclaredFlow[Any], *, inline: Inline, watcher: Watcher) -> None:
        self._process, self._flow, self._inline, self._watcher = process, flow, inline, watcher
        #: Run id → the results of its phases that are at hand.
        self.known_results: dict[str, dict[str, Any]] = {}
        #: Owner of a claim → what came of it.
        self.executions: dict[str, Execution] = {}
        #: What a commit left out, as another transaction held the rows of the runs, or their claims were lost.
        self.passed_over: deque[tuple[Claim, Ended]] = deque()

    def settle_together(
        self, ending: Sequence[tuple[Claim, Ended]], *, room: int | None, pass_over: bool
    ) -> list[Claim]:
        """
        Complete what has ended well in one commit; each alone where that does not work.

        `room` is how many claims wait here already, `None` when nothing more can be started at once. With `pass_over`
        nothing waits for a row that another transaction holds: it is left in `passed_over`, to be settled alone.
        Returns: the claims of the next phases that were taken. Raises: LedgerUnavailable, LedgerRefused.
        """
        successes = self._successes(ending, room=room)
        try:
            moved = self._record(successes, pass_over=pass_over)
        except (LedgerUnavailable, LedgerRefused):
            raise
        except Exception:
            if len(ending) == 1:
                raise
            logger.debug("the commit for %d runs failed; settling each on its own", len(ending), exc_info=True)
            return [each for claim, ended in ending for each in self._settle_of_many(claim, ended, room=room)]
        if pass_over:
            self.passed_over += [(each.claim, each.ended) for each in successes if each.claim.run_id not in moved]
            successes = [each for each in successes if each.claim.run_id in moved]
        return self._go_on(successes, moved)

    def settle(self, claim: Claim, ended: Ended, *, room: int | None) -> list[Claim]:
        """Settle one attempt in a transaction of its own. As `settle_together`."""
        if ended.ending in COMPLETE:
            return self._complete(claim, ended, room=room)
        state = self.give_up(claim, ended, patience=self._patience([claim]))
        if state is RunState.FAILED:
            ended = replace(ended, ending=Ending.FAILURE)
        elif state is None and ended.ending is not Ending.CLAIMLOST:
            ended = replace(ended, ending=Ending.CLAIMLOST)
        self._note(claim, ended, state)
        return []

    def _complete(self, claim: Claim, ended: Ended, *, room: int | None) -> list[Claim]:
        successes = self._successes([(claim, ended)], room=room)
        try:
            return self._go_on(successes, self._record(successes))
        except ClaimLost as lost:
            self._note_lost(claim, ended, lost)
            return []
        except CompletionFailed as failed:
            backoff = self._flow.phases[claim.phase].options.backoff
            ended = ended_in_completion(failed.error, ended, claim=claim, backoff=backoff)
            return self.settle(claim, ended, room=room)

    def _settle_of_many(self, claim: Claim, ended: Ended, *, room: int | None) -> list[Claim]:
        """As `settle`; what the ledger refuses of this one does not affect the others."""
        try:
            return self.settle(claim, ended, room=room)
        except (LedgerUnavailable, LedgerRefused):
            raise
        except Exception:
            logger.exception("%s/%s cannot be recorded; its lease will lapse", claim.run_id, claim.phase)
            why = "its result could not be recorded"
            self._note_lost(claim, ended, ClaimLost(claim.run_id, claim.phase, claim.fence, why))
            return []

    def _record(self, successes: Sequence[Success], *, pass_over: bool = False) -> dict[str, Moved]:
        patience = self._patience(each.claim for each in successes)
        database, worker = self._process.database, self._process.worker
        return record(database, successes, worker=worker, patience=patience, pass_over=pass_over)

    def _go_on(self, successes: Iterable[Success], moved: dict[str, Moved]) -> list[Claim]:
        """After completions: name what follows here, publish what follows elsewhere, ring for what was planned."""
        here: list[Claim] = []
        due: list[Due] = []
        planned = 0
        for each in successes:
            claim, ended, now = each.claim, each.ended, moved.get(each.claim.run_id)
            if now is None:
                self._note_lost(claim, ended, ClaimLost(claim.run_id, claim.phase, claim.fence))
                continue
            # What the next phases ask for by `ctx.result` is at hand; the ledger need not be read.
            self.known_results.setdefault(claim.run_id, {})[claim.phase] = json.loads(ended.result)
            planned += len(ended.actions)
            self._note(claim, ended, now.state)
            if now.claim is not None:
                here.append(now.claim)
            elif now.state is RunState.QUEUED and each.next_phase is not None:
                due.append(message.of_claim(claim=claim, flow=self._flow, fence=now.fence, next_phase=each.next_phase))
        self._process.publisher.publish(due)
        self._process.publisher.ring_actions(planned)
        return here

    def _note_lost(self, claim: Claim, ended: Ended, lost: ClaimLost) -> None:
        logger.debug("%s", lost, extra={"run": lost.run_id, "phase": lost.phase, "fence": lost.fence})
        self._note(claim, replace(ended, ending=Ending.CLAIMLOST, exception=lost), None)

    def _note(self, claim: Claim, ended: Ended, state: RunState | None) -> None:
        self._process.keeper.forget(claim)
        self.executions[claim.owner] = Execution(claim, ended, state)
        self._watcher.ended(claim, ended, state)

    def _successes(self, ending: Sequence[tuple[Claim, Ended]], *, room: int | None) -> list[Success]:
        """Each with where its run continues: here for as many as can be started at once, else through the broker."""
        description, successes = self._flow.described(self._process.config), []
        waiting = room or 0
        for claim, ended in ending:
            is_here = room is not None and self._starts_here(claim, waiting)
            owner = nonce() if is_here else None
            successes.append(Success(claim, ended, description.next_phase(claim, owner=owner)))
            waiting += is_here
        return successes

    def _starts_here(self, claim: Claim, waiting: int) -> bool:
        """Whether the phase after a claim's follows in this delivery, with this many claims waiting here."""
        after = None if claim.is_last else self._flow.phases.get(claim.phases[claim.cursor + 1])
        if after is None or waiting >= self._process.size(after, inline=self._inline):
            return False
        return self._inline(self._flow.phases[claim.phase], after) and not self._process.stopping()

    def _patience(self, claims: Iterable[Claim]) -> float:
        return min(self._process.lease(self._flow.phases[claim.phase]).total_seconds() for claim in claims)

    def give_up(self, claim: Claim, ended: Ended, *, patience: float) -> RunState | None:
        """End an attempt that has no result; see `transactions.give_up`."""
        hooks, worker = self._flow.described(self._process.config).hooks_of_stop, self._process.worker
        return give_up(self._process.database, claim, ended, hooks=hooks, worker=worker, patience=patience)
