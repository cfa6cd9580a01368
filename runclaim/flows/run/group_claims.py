"""
The claims that a group holds: those that wait for their bodies, the one whose body runs, those that have ended.

Nothing here decides when; the group does, and holds its lock meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from runclaim import logs
from runclaim.flows.messages import message
from runclaim.flows.run.attempt import Attempt
from runclaim.flows.run.body import Body
from runclaim.flows.run.ending import ended_midway
from runclaim.flows.run.transactions import give_back

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.run.body import Record
    from runclaim.flows.run.ending import Ended
    from runclaim.flows.run.process import Process
    from runclaim.flows.run.settler import Settler
    from runclaim.ledger.fence import Claim

logger: Final = logs.logger("runclaim.runner")

#: If a delivery is ended during a body, or gives claims back, it waits no longer than this for the ledger.
_LAST_WORD_SECONDS: Final = 2.0


class GroupClaims:
    """Not safe across threads."""

    def __init__(self, process: Process, flow: DeclaredFlow[Any], settler: Settler) -> None:
        self._process, self._flow, self._settler = process, flow, settler
        #: Their bodies have not begun.
        self.waiting: deque[Claim] = deque()
        #: The one that runs, or is settled alone.
        self.body: Body | None = None
        #: They have ended well and wait for a common commit.
        self.ended: list[tuple[Claim, Ended]] = []

    def phase(self, claim: Claim) -> Phase[Any, Any]:
        """The phase of a claim."""
        return self._flow.phases[claim.phase]

    def take(self, claims: Iterable[Claim]) -> None:
        """Keep their leases; their bodies begin in this order."""
        for claim in claims:
            phase = self.phase(claim)
            lease, longest = self._process.lease(phase), self._process.max_duration(phase)
            self._process.keeper.watch(claim, lease=lease, max_duration=longest)
            self.waiting.append(claim)

    def begin(self, record: Record) -> Body:
        """The body of the claim that has waited longest."""
        claim = self.waiting.popleft()
        known_results = self._settler.known_results.setdefault(claim.run_id, {})
        attempt = Attempt(claim, flow=self._flow, process=self._process, known_results=known_results)
        self.body = Body(claim, attempt, record)
        return self.body

    def settle_ended(self, *, can_go_on: bool) -> None:
        """Settle what has ended, in one commit; with `can_go_on` their next phases may be claimed here."""
        ending, self.ended = self.ended, []
        pass_over = len(ending) > 1 or bool(self.waiting) or self.body is not None
        room = len(self.waiting) if can_go_on else None
        try:
            self.take(self._settler.settle_together(ending, room=room, pass_over=pass_over))
        except BaseException:
            # What is not settled is tried again, or forgotten with the group: its lease has to lapse.
            self.ended = [each for each in ending if each[0].owner not in self._settler.executions]
            raise

    def settle_passed_over(self) -> bool:
        """Settle one that a commit left out: nothing else waits here now, so it may wait for its row."""
        if not (left := self._settler.passed_over):
            return False
        claim, ended = left[0]
        self.take(self._settler.settle(claim, ended, room=len(self.waiting)))
        left.popleft()
        return True

    def give_back(self) -> None:
        """Release what waits: its body has not begun, so no attempt is burned."""
        waiting, self.waiting = list(self.waiting), deque()
        for claim in waiting:
            self._process.keeper.forget(claim)
        queued = give_back(self._process.database, waiting, patience=_LAST_WORD_SECONDS)
        released = [claim for claim in waiting if claim.run_id in queued]
        self._process.publisher.publish(
            [message.of_claim(claim=claim, flow=self._flow, fence=claim.fence + 1) for claim in released]
        )

    def give_up(self, gone: BaseException) -> None:
        """Settle everything, if the ledger answers: `gone` ended the delivery during a body."""
        try:
            if self.body is not None:
                self._give_up_body(self.body, gone)
            if self.ended:
                self.settle_ended(can_go_on=False)
            if self.waiting:
                self.give_back()
        except Exception as error:  # noqa: BLE001 - as in any cut, the leases lapse and rescue gives the claims back
            # Without its traceback, which would tell of `gone` too, as it is.
            logger.warning("could not give back the claims of a delivery (%r); rescue will", error)

    def _give_up_body(self, body: Body, gone: BaseException) -> None:
        ended = ended_midway(
            gone,
            claim=body.claim,
            backoff=self.phase(body.claim).options.backoff,
            is_stopping=self._process.is_cut_off(),
            hide=body.attempt.secrets.redact,
        )
        self._settler.give_up(body.claim, ended, patience=_LAST_WORD_SECONDS)

    def forget(self) -> None:
        """Keep no lease any longer: what is left lapses."""
        left = [*self.waiting, *(claim for claim, _ in (*self.ended, *self._settler.passed_over))]
        for claim in left if self.body is None else [*left, self.body.claim]:
            self._process.keeper.forget(claim)
