"""
The settler of a delivery: what has ended goes into the ledger, and each run goes on where it can be started at once.

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
from runclaim.flows.run.attempt import Ended, Ending, ended_in_completion
from runclaim.flows.run.execution import Execution
from runclaim.flows.run.settlement import Settled, give_up, record
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.run.execution import Watcher
    from runclaim.flows.run.runner import Runner
    from runclaim.ledger.completion import Moved, NextPhase
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.fence import Claim

    Inline = Callable[[Phase[Any, Any], Phase[Any, Any]], bool]

logger: Final = logs.logger("runclaim.runner")

COMPLETE: Final = frozenset({Ending.SUCCESS, Ending.SKIPPED})


class Settler:
    """Of one delivery; not safe across threads: the group holds its lock."""

    def __init__(self, runner: Runner, flow: DeclaredFlow[Any], *, inline: Inline, watcher: Watcher) -> None:
        self._runner, self._flow, self._inline, self._watcher = runner, flow, inline, watcher
        #: Run id → the results of its phases that are at hand.
        self.known: dict[str, dict[str, Any]] = {}
        #: Owner of a claim → what came of it.
        self.settled: dict[str, Execution] = {}
        #: What a commit left out, as another transaction held the rows of the runs, or their claims were lost.
        self.passed_over: deque[tuple[Claim, Ended]] = deque()

    def settle_together(
        self, ending: Sequence[tuple[Claim, Ended]], *, room: int | None, pass_over: bool
    ) -> list[Claim]:
        """
        Complete what has ended well in one commit; each alone where that does not work.

        `room` is how many claims wait here already, `None` when nothing more can be started at once. With `pass_over`
        nothing waits for a row that somebody holds: it is left in `passed_over`, to be settled alone. Returns: the
        claims of the next phases that were taken. Raises: LedgerUnavailable, LedgerRefused.
        """
        following = self._following_all([claim for claim, _ in ending], room=room)
        try:
            given = [Settled(claim, ended, following[claim.owner]) for claim, ended in ending]
            moved = record(
                self._runner.database,
                given,
                worker=self._runner.worker,
                patience=self._patience(ending),
                pass_over=pass_over,
            )
        except (LedgerUnavailable, LedgerRefused):
            raise
        except Exception:
            if len(ending) == 1:
                raise
            logger.debug("a commit for %d runs failed; each is settled alone", len(ending), exc_info=True)
            return [each for claim, ended in ending for each in self._settle_of_many(claim, ended, room=room)]
        if pass_over:
            self.passed_over += [each for each in ending if each[0].run_id not in moved]
            ending = [each for each in ending if each[0].run_id in moved]
        return self._go_on([(claim, ended, moved.get(claim.run_id), following[claim.owner]) for claim, ended in ending])

    def settle(self, taken: Claim, ended: Ended, *, room: int | None) -> list[Claim]:
        """Settle one attempt in a transaction of its own. As `settle_together`."""
        patience = self._patience([(taken, ended)])
        if ended.ending in COMPLETE:
            following = self._following_all([taken], room=room)[taken.owner]
            try:
                given = [Settled(taken, ended, following)]
                found = record(self._runner.database, given, worker=self._runner.worker, patience=patience)
                return self._go_on([(taken, ended, found.get(taken.run_id), following)])
            except ClaimLost as lost:
                self._lost(taken, ended, lost)
                return []
            except CompletionFailed as failed:
                backoff = self._flow.phases[taken.phase].options.backoff
                return self.settle(taken, ended_in_completion(failed.error, ended, taken, backoff), room=room)
        state = self.give_up(taken, ended, patience=patience)
        if state is RunState.FAILED:
            ended = replace(ended, ending=Ending.FAILURE)
        elif state is None and ended.ending is not Ending.CLAIMLOST:
            ended = replace(ended, ending=Ending.CLAIMLOST)
        self._tell(taken, ended, state)
        return []

    def _settle_of_many(self, taken: Claim, ended: Ended, *, room: int | None) -> list[Claim]:
        """As `settle`; what the ledger does not take of this one is no matter of the others."""
        try:
            return self.settle(taken, ended, room=room)
        except (LedgerUnavailable, LedgerRefused):
            raise
        except Exception:
            logger.exception("%s/%s cannot be recorded; its lease lapses", taken.run_id, taken.phase)
            why = "its result could not be recorded"
            self._lost(taken, ended, ClaimLost(taken.run_id, taken.phase, taken.fence, why))
            return []

    def _go_on(self, settled: Iterable[tuple[Claim, Ended, Moved | None, NextPhase | None]]) -> list[Claim]:
        """After completions: name what follows here, publish what follows elsewhere, ring for what was planned."""
        here: list[Claim] = []
        due: list[Due] = []
        planned = 0
        for taken, ended, moved, following in settled:
            if moved is None:
                self._lost(taken, ended, ClaimLost(taken.run_id, taken.phase, taken.fence))
                continue
            # What the next phases ask for by `ctx.result` is at hand; the ledger need not be read.
            self.known.setdefault(taken.run_id, {})[taken.phase] = json.loads(ended.result)
            planned += len(ended.actions)
            self._tell(taken, ended, moved.state)
            if moved.claim is not None:
                here.append(moved.claim)
            elif moved.state is RunState.QUEUED and following is not None:
                due.append(message.of_claim(claim=taken, flow=self._flow, fence=moved.fence, next_phase=following))
        self._runner.publisher.publish(due)
        self._runner.publisher.ring_actions(planned)
        return here

    def _lost(self, taken: Claim, ended: Ended, lost: ClaimLost) -> None:
        logger.debug("%s", lost, extra={"run": lost.run_id, "phase": lost.phase, "fence": lost.fence})
        self._tell(taken, replace(ended, ending=Ending.CLAIMLOST, exception=lost), None)

    def _tell(self, taken: Claim, ended: Ended, state: RunState | None) -> None:
        self._runner.keeper.forget(taken)
        self.settled[taken.owner] = Execution(taken, ended, state)
        self._watcher.ended(taken, ended, state)

    def _following_all(self, claims: list[Claim], *, room: int | None) -> dict[str, NextPhase | None]:
        """Where each goes on: inline as many as can be started at once here, the others through the broker."""
        found: dict[str, NextPhase | None] = {}
        taken = room or 0
        for claim in claims:
            after = None if claim.is_last else self._flow.phases.get(claim.phases[claim.cursor + 1])
            here = after is not None and room is not None and taken < self._runner.size(after, inline=self._inline)
            found[claim.owner] = self._runner.following(self._flow, claim, inline=self._inline if here else _nowhere)
            taken += bool(here)
        return found

    def _patience(self, ending: Iterable[tuple[Claim, Ended]]) -> float:
        leases = (self._runner.lease(self._flow.phases[claim.phase]) for claim, _ in ending)
        return min(lease.total_seconds() for lease in leases)

    def give_up(self, taken: Claim, ended: Ended, *, patience: float) -> RunState | None:
        """End an attempt that has no result; see `settle.give_up`."""
        hooks, worker = self._flow.hooks.stopped, self._runner.worker
        return give_up(self._runner.database, taken, ended, hooks=hooks, worker=worker, patience=patience)


def _nowhere(_before: Phase[Any, Any], _after: Phase[Any, Any]) -> bool:
    return False
