"""
A group: the claims of one delivery. Bodies run one by one, and those that end well within a moment share a commit.

What a claim of the group does to another is nothing: a lost claim, a failed attempt and whatever writes rows of the
application are settled alone. A group of one is the ordinary case, and settles at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runclaim import logs
from runclaim.flows.messages import message
from runclaim.flows.run.attempt import Attempt, Ended
from runclaim.flows.run.body import Body
from runclaim.flows.run.execution import Execution
from runclaim.flows.run.pace import GROUP_SECONDS
from runclaim.flows.run.settlement import give_back
from runclaim.flows.run.settler import COMPLETE, Settler
from runclaim.flows.run.spans import Told
from runclaim.secrets import redact
from runclaim.tracebacks import harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.run.execution import Watcher
    from runclaim.flows.run.runner import Runner
    from runclaim.flows.run.settler import Inline
    from runclaim.ledger.fence import Claim

logger = logs.logger("runclaim.runner")

#: A body that is settled alone for longer keeps no other run of its group waiting.
_SETTLE_SECONDS: Final = 1.0


class Group:
    """The claims of one delivery, from their claim to the end of the last phase that follows inline."""

    def __init__(self, runner: Runner, flow: DeclaredFlow[Any], *, inline: Inline, watcher: Watcher) -> None:
        self._runner, self._flow, self._watcher = runner, flow, watcher
        self._settler = Settler(runner, flow, inline=inline, watcher=watcher)
        #: Held while anything is settled; never while a body runs.
        self._lock = threading.Lock()
        self._waiting: deque[Claim] = deque()
        self._ended: list[tuple[Claim, Ended]] = []
        self._settle_by = self._give_back_at = 0.0
        self._body: Body | None = None
        self._has_begun = False
        #: Around the whole delivery of one run; the runs of a group each have theirs.
        self._told: Told | None = None

    def run(self, claims: Sequence[Claim]) -> Execution:
        """
        Run the bodies of `claims`, and of the phases that follow inline.

        Returns: the first claim's attempt. Raises: LedgerUnavailable.
        """
        self._take(claims)
        if shared := len(self._waiting) > 1:
            self._runner.minder.watch(self)
        try:
            with Told() as told:
                self._told = None if shared else told
                while (body := self._next()) is not None:
                    self._run_body(body)
        except Exception:
            # The ledger is away: what is left lapses and is rescued, and its attempts stay counted.
            raise
        except BaseException as gone:
            with self._lock:
                hide = self._abandon(gone)
            if (shown := harmless(gone, hide)) is not gone:
                raise shown from None
            raise
        finally:
            if shared:
                self._runner.minder.forget(self)
            left = [*self._waiting, *(claim for claim, _ in (*self._ended, *self._settler.passed_over))]
            for claim in left if self._body is None else [*left, self._body.claim]:
                self._runner.keeper.forget(claim)
        return self._settler.settled.get(claims[0].owner) or Execution(None, None)

    def _take(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            phase = self._phase(claim)
            lease, longest = self._runner.lease(phase), self._runner.max_duration(phase)
            self._runner.keeper.watch(claim, lease=lease, max_duration=longest)
            self._waiting.append(claim)

    def _next(self) -> Body | None:
        """The body that starts now, after the settling that is due before it."""
        with self._lock:
            while True:
                if self._ended and (not self._waiting or self._is_due(time.monotonic())):
                    self._settle_ended(room=True)
                if self._waiting and self._has_begun and self._runner.stopping():
                    self._give_back()
                if self._waiting:
                    self._has_begun = True
                    taken = self._waiting.popleft()
                    self._body = Body(taken, self._attempt(taken), self._record)
                    self._give_back_at = self._body.since + GROUP_SECONDS
                    return self._body
                if not self._ended and not self._settle_passed_over():
                    return None

    def _settle_passed_over(self) -> bool:
        """Settle one that a commit left out: nothing else waits here now, so it may wait for its row."""
        if not (left := self._settler.passed_over):
            return False
        taken, ended = left[0]
        self._take(self._settler.settle(taken, ended, room=self._room(room=True)))
        left.popleft()
        return True

    def _is_due(self, moment: float) -> bool:
        """Whether the first that ended would wait too long for the body that is next."""
        following = self._phase(self._waiting[0])
        return moment + self._runner.pace.seconds(following.task_name) >= self._settle_by

    def mind(self, moment: float) -> None:
        """Called beside a body by the minder: settle and give back what must not wait for its end."""
        # Its own thread is settling; other groups are not to wait for that.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._body is None:
                return
            if self._ended and moment >= self._settle_by:
                self._settle_ended(room=False)
            if self._waiting and moment >= self._give_back_at:
                self._give_back()
        finally:
            self._lock.release()

    def _run_body(self, body: Body) -> None:
        with ExitStack() as stack:
            told = self._told or stack.enter_context(Told())
            tell = stack.enter_context(told.phase(body.claim))
            self._watcher.started(body.claim)
            # What a body leaves in context variables is no other body's.
            copy_context().run(self._watcher.perform, body)
            settled = body.execution and body.execution.ended
            if ended := settled or body.ended:
                tell(ended)

    def _record(self, body: Body, ended: Ended, *, at_once: bool) -> Execution:
        self._runner.pace.note(self._phase(body.claim).task_name, time.monotonic() - body.since)
        with self._lock:
            alone = self._end(body.claim, ended, at_once=at_once)
            if alone is None:
                self._body = None
            self._give_back_at = time.monotonic() + _SETTLE_SECONDS
        if alone is not None:
            # Without the lock: the minder gives back what waits here if this has to wait for its row.
            following = self._settler.settle(body.claim, alone, room=self._room(room=True))
            with self._lock:
                self._take(following)
                self._body = None
        return self._settler.settled.get(body.claim.owner) or Execution(body.claim, ended)

    def _attempt(self, taken: Claim) -> Attempt:
        return Attempt(
            taken,
            flow=self._flow,
            phase=self._phase(taken),
            database=self._runner.database,
            keeper=self._runner.keeper,
            stopping=self._runner.stopping,
            known_results=self._settler.known.setdefault(taken.run_id, {}),
        )

    def _phase(self, claim: Claim) -> Phase[Any, Any]:
        return self._flow.phases[claim.phase]

    def _end(self, taken: Claim, ended: Ended, *, at_once: bool) -> Ended | None:
        """Let it wait for a common commit, or return how it ended: it is to be settled alone."""
        if ended.ending in COMPLETE:
            ended = replace(ended, actions=(*ended.actions, *self._flow.hooks.completed(taken)))
            if not ended.writes and not at_once:
                self._settle_by = self._settle_by if self._ended else time.monotonic() + GROUP_SECONDS
                self._ended.append((taken, ended))
                return None
        # Nothing that has ended waits for the application's own functions.
        if self._ended:
            self._settle_ended(room=True)
        return ended

    def _settle_ended(self, *, room: bool) -> None:
        ending, self._ended = self._ended, []
        pass_over = len(ending) > 1 or bool(self._waiting) or self._body is not None
        try:
            self._take(self._settler.settle_together(ending, room=self._room(room=room), pass_over=pass_over))
        except BaseException:
            # What is not settled is tried again, or forgotten with the group: its lease has to lapse.
            self._ended = [each for each in ending if each[0].owner not in self._settler.settled]
            raise

    def _room(self, *, room: bool) -> int | None:
        """How many runs wait here already; `None` when nothing more can be started at once."""
        return len(self._waiting) if room else None

    def _give_back(self) -> None:
        """Release what waits: its body has not begun, so no attempt is burned."""
        waiting, self._waiting = list(self._waiting), deque()
        for claim in waiting:
            self._runner.keeper.forget(claim)
        queued = give_back(self._runner.database, waiting, patience=2.0)
        self._runner.publisher.publish(
            [
                message.of_claim(claim=each, flow=self._flow, fence=each.fence + 1)
                for each in waiting
                if each.run_id in queued
            ]
        )

    def _abandon(self, gone: BaseException) -> Callable[[str], str]:
        """
        The process or the delivery ends in the middle of a body: settle everything, if the ledger answers.

        A worker that shuts down gives the attempt back. Whatever else ends it (`sys.exit` in the body, a time
        limit) is an error of the attempt: given back, such a body would start again for ever.

        Returns: what redacts what the body was given.
        """
        hide = redact if self._body is None else self._body.attempt.secrets.redact
        try:
            if self._body is not None:
                taken = self._body.claim
                self._settler.give_up(
                    taken, self._runner.cut_off(self._phase(taken), taken, gone, hide=hide), patience=2.0
                )
            if self._ended:
                self._settle_ended(room=False)
            if self._waiting:
                self._give_back()
        except Exception as error:  # noqa: BLE001 - as in any cut, the leases lapse and rescue gives the claims back
            # Without its traceback, which would tell of `gone` too, as it is.
            logger.warning("could not give back what a delivery held (%r); rescue will", error)
        return hide
