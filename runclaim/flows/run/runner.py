"""
The runner: claim what a message names, run the bodies with no transaction open, settle, continue with the next phases.

All that decides is in the ledger's verbs. The runner only does what their answers say: an empty claim is a
duplicate, a missing completion is a lost claim. What it cannot start at once it passes on before it begins.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runclaim import failpoints
from runclaim.errors import LedgerUnavailable
from runclaim.flows.messages.message import passed_on
from runclaim.flows.run.execution import Execution, Unanswered
from runclaim.flows.run.group import Group
from runclaim.keys import nonce
from runclaim.ledger.claim import ClaimRequest, claim, claimed, passed_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.messages.message import Message
    from runclaim.flows.run.body import Watcher
    from runclaim.flows.run.execution import Inline
    from runclaim.flows.run.process import Process
    from runclaim.ledger.fence import Claim

#: How long a delivery waits before it asks once more for runs whose rows others hold. What is held for longer waits in
#: the ledger until it is dispatched.
_PAUSES: Final = (0.02, 0.08, 0.2)


@dataclass(frozen=True, slots=True)
class Runner:
    """Does what messages ask for, in a process."""

    process: Process

    def deliver(
        self, flow: DeclaredFlow[Any], phase: Phase[Any, Any], message: Message, *, inline: Inline, watcher: Watcher
    ) -> Execution:
        """
        Run the phase of the runs that a message names, and the phases after it that `inline(before, after)` allows.

        What cannot be started at once is passed on. Returns: the first attempt. Raises: LedgerUnavailable (Unanswered)
        when the ledger cannot be reached; the runs wait.
        """
        group = Group(self.process, flow, inline=inline, watcher=watcher)
        size = self.process.size(phase, inline=inline)
        claims: list[Claim] = []
        left = message.named
        while left and not claims:
            now, left = left[:size], left[size:]
            claims = self._claim(phase, now)
        if not claims:
            return Execution(None, None)
        if left:
            self._pass_on(claims[0], left)
        return group.run(claims)

    def _claim(self, phase: Phase[Any, Any], named: Sequence[tuple[str, int]]) -> list[Claim]:
        """Claim what `named` names; a run whose row another transaction holds is asked for a few times more."""
        wanted = [ClaimRequest(run_id, seen, nonce()) for run_id, seen in named]
        claims = self._claim_free(phase, wanted)
        left = _without(wanted, claims)
        # What was claimed is run even if the ledger goes away meanwhile.
        with suppress(LedgerUnavailable):
            for pause in _PAUSES if left else ():
                left = self._held(phase, left)
                if not left:
                    break
                time.sleep(pause)
                claims += self._claim_free(phase, left)
                left = _without(left, claims)
        return claims

    def _held(self, phase: Phase[Any, Any], wanted: Sequence[ClaimRequest]) -> list[ClaimRequest]:
        """Those whose rows others hold; the others are duplicates, and are counted."""
        held = self.process.database.ask(lambda conn: passed_over(conn, wanted))
        for _ in range(len(wanted) - len(held)):
            self.process.keeper.count("duplicates_refused", phase.flow)
        return [each for each in wanted if each.run_id in held]

    def _claim_free(self, phase: Phase[Any, Any], wanted: Sequence[ClaimRequest]) -> list[Claim]:
        process = self.process

        def work(conn: Connection) -> list[Claim]:
            failpoints.hit("claim.before_commit")
            return claim(
                conn,
                wanted,
                flow=phase.flow,
                phase=phase.name,
                worker=process.worker,
                lease=process.lease(phase),
                max_duration=process.max_duration(phase),
                waits_for=phase.options.on,
                max_attempts=phase.options.max_attempts,
                max_losses=phase.max_losses,
                pass_over=True,
            )

        try:
            claims = process.database.run(work, read_back=lambda conn: claimed(conn, wanted) or None, at_once=True)
        except LedgerUnavailable as away:
            raise Unanswered(str(away), wanted[0].owner) from away
        failpoints.hit("claim.after_commit")
        return claims

    def _pass_on(self, like: Claim, named: Sequence[tuple[str, int]]) -> None:
        """Give runs that were not claimed to others, in two halves, so that they spread over a pool quickly."""
        half = (len(named) + 1) // 2
        for part in (named[:half], named[half:]):
            self.process.publisher.publish(passed_on(like=like, named=part))


def _without(wanted: Sequence[ClaimRequest], claims: Sequence[Claim]) -> list[ClaimRequest]:
    claimed_ids = {each.run_id for each in claims}
    return [each for each in wanted if each.run_id not in claimed_ids]
