"""
The runner: claim what a message names, run the bodies with no transaction open, settle, go on with the next phases.

All that decides is in the ledger's verbs. The runner only does what their answers say: an empty claim is a
duplicate, a missing completion is a lost claim. What it cannot start at once it passes on before it begins.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from runclaim import failpoints
from runclaim.errors import LedgerUnavailable, Released
from runclaim.flows.messages.message import passed_on
from runclaim.flows.run.attempt import Ended, Ending
from runclaim.flows.run.execution import Execution, Unanswered, Watcher
from runclaim.flows.run.group import Group
from runclaim.flows.run.next_phase import following
from runclaim.keys import nonce
from runclaim.ledger.claim import ClaimRequest, claim, claimed, passed_over
from runclaim.ledger.fence import Claim
from runclaim.secrets import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from runclaim.config import Config
    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.messages.publisher import Publisher
    from runclaim.flows.run.group_minder import Minder
    from runclaim.flows.run.lease_keeper import Keeper
    from runclaim.flows.run.pace import Pace
    from runclaim.flows.run.settler import Inline
    from runclaim.ledger.completion import NextPhase
    from runclaim.ledger.fence import Claim

#: How long a delivery waits before it asks once more for runs whose rows others hold. What is held for longer waits in
#: the ledger until it is dispatched.
_PAUSES: Final = (0.02, 0.08, 0.2)
#: How long a pool child waits to hear that the worker stops when it is ended itself.
_HEARD_SECONDS: Final = 0.5
#: A phase whose claims are safe for less than this shares nothing.
_SHORTEST: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Everything a delivery needs. `worker` names this process, `stopping` tells that it shuts down."""

    database: Database
    keeper: Keeper
    publisher: Publisher
    config: Config
    pace: Pace
    minder: Minder
    worker: str
    stopping: Callable[[], bool]

    def deliver(
        self,
        flow: DeclaredFlow[Any],
        phase: Phase[Any, Any],
        named: Sequence[tuple[str, int]],
        *,
        inline: Inline,
        watcher: Watcher,
    ) -> Execution:
        """
        Run the phase of the runs that a message names, and the phases after it that `inline(before, after)` allows.

        `named` are pairs of a run's id and the fence that the message was sent at. What cannot be started at once is
        passed on. Returns: the first attempt. Raises: LedgerUnavailable (Unanswered) when the ledger cannot be reached;
        the runs wait.
        """
        group = Group(self, flow, inline=inline, watcher=watcher)
        at_once = self.size(phase, inline=inline)
        claims: list[Claim] = []
        while named and not claims:
            asked, named = named[:at_once], named[at_once:]
            claims = self._claim(phase, asked)
        if not claims:
            return Execution(None, None)
        if named:
            self._pass_on(claims[0], named)
        return group.run(claims)

    def _claim(self, phase: Phase[Any, Any], named: Sequence[tuple[str, int]]) -> list[Claim]:
        """Claim what `named` names; a run whose row another transaction holds is asked for a few times more."""
        wanted = [ClaimRequest(run_id, seen, nonce()) for run_id, seen in named]
        found = self._claim_free(phase, wanted)
        left = _without(wanted, found)
        # What was claimed is run even if the ledger goes away meanwhile.
        with suppress(LedgerUnavailable):
            for pause in _PAUSES if left else ():
                held = self.database.ask(lambda conn, asked=left: passed_over(conn, asked))  # type: ignore[misc]
                for _ in range(len(left) - len(held)):
                    self.keeper.count("duplicates_refused", phase.flow)
                if not (left := [each for each in left if each.run_id in held]):
                    break
                time.sleep(pause)
                found += self._claim_free(phase, left)
                left = _without(left, found)
        return found

    def _claim_free(self, phase: Phase[Any, Any], wanted: Sequence[ClaimRequest]) -> list[Claim]:
        def work(conn: Connection) -> list[Claim]:
            failpoints.hit("claim.before_commit")
            return claim(
                conn,
                wanted,
                flow=phase.flow,
                phase=phase.name,
                worker=self.worker,
                lease=self.lease(phase),
                max_duration=self.max_duration(phase),
                waits_for=phase.options.on,
                max_attempts=phase.options.max_attempts,
                max_losses=phase.max_losses,
                pass_over=True,
            )

        try:
            found = self.database.run(work, read_back=lambda conn: claimed(conn, wanted) or None, at_once=True)
        except LedgerUnavailable as away:
            raise Unanswered(str(away), wanted[0].owner) from away
        failpoints.hit("claim.after_commit")
        return found

    def _pass_on(self, like: Claim, named: Sequence[tuple[str, int]]) -> None:
        """Give runs that were not claimed to others, in two halves, so that they spread over a pool quickly."""
        half = (len(named) + 1) // 2
        for part in (named[:half], named[half:]):
            self.publisher.publish(passed_on(like=like, named=part))

    def size(self, phase: Phase[Any, Any], *, inline: Inline) -> int:
        """How many runs of `phase` are started in one go: one where a group could spend somebody else's budget."""
        shortest = min(self.lease(phase), self.max_duration(phase))
        spends = phase.options.max_attempts == 1 or phase.max_losses == 1
        if not self.config.grouped or spends or shortest < _SHORTEST or not inline(phase, phase):
            return 1
        return self.pace.size(phase.task_name)

    def cut_off(
        self, phase: Phase[Any, Any], taken: Claim, gone: BaseException, *, hide: Callable[[str], str]
    ) -> Ended:
        """How an attempt ended in whose middle `gone` was raised: given back where the worker shuts down."""
        if self._is_stopping(within=_HEARD_SECONDS):
            why = f"{kind_of(gone)} ended the delivery"
            released = Released(taken.run_id, taken.phase, taken.fence, why)
            return Ended(Ending.RELEASED, timedelta(0), exception=released)
        delay = phase.options.backoff.delay(taken.attempt)
        return Ended(Ending.RETRY, timedelta(0), exception=gone, delay=delay, hide=hide)

    def _is_stopping(self, *, within: float) -> bool:
        """A signal to the whole process group may reach a pool child before its parent has told it to stop."""
        ends = time.monotonic() + within
        while not (stopping := self.stopping()) and time.monotonic() < ends:
            time.sleep(0.02)
        return stopping

    def following(self, flow: DeclaredFlow[Any], taken: Claim, *, inline: Inline) -> NextPhase | None:
        """Where the run of a claim goes on, with a nonce if that is here and now; `None` after its last phase."""
        after = None if taken.is_last else flow.phases.get(taken.phases[taken.cursor + 1])
        at_once = after is not None and inline(flow.phases[taken.phase], after) and not self.stopping()
        return following(flow, taken, config=self.config, owner=nonce() if at_once else None)

    def lease(self, phase: Phase[Any, Any]) -> timedelta:
        """How long a claim of the phase is safe without a heartbeat."""
        return phase.options.lease or self.config.lease

    def max_duration(self, phase: Phase[Any, Any]) -> timedelta:
        """When a claim of the phase ends although its heartbeat goes on."""
        return phase.options.max_duration or self.config.max_duration


def _without(wanted: Sequence[ClaimRequest], found: Sequence[Claim]) -> list[ClaimRequest]:
    taken = {each.run_id for each in found}
    return [each for each in wanted if each.run_id not in taken]
