"""
A group: the claims of one delivery. Bodies run one by one, and those that end well within a moment share a commit.

No claim of a group affects another: a lost claim, a failed attempt and whatever writes rows of the application are
settled alone. A group of one is the ordinary case, and settles at once.

Its own thread runs the bodies, and holds the lock between them. While a body runs, or is settled alone, the lock is
free: then the minder of the process may settle what ended before, and give back what waits behind.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from runclaim.flows.run.ending import COMPLETE
from runclaim.flows.run.execution import Execution
from runclaim.flows.run.group_claims import GroupClaims
from runclaim.flows.run.pace import GROUP_SECONDS
from runclaim.flows.run.settler import Settler
from runclaim.flows.run.spans import DeliverySpan
from runclaim.secrets import redact
from runclaim.tracebacks import harmless

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.run.body import Body, Watcher
    from runclaim.flows.run.ending import Ended
    from runclaim.flows.run.execution import Inline
    from runclaim.flows.run.process import Process
    from runclaim.ledger.fence import Claim

#: A body that is settled alone for longer keeps no other run of its group waiting.
_SETTLE_SECONDS: Final = 1.0


class Group:
    """The claims of one delivery, from their claim to the end of the last phase that follows inline."""

    def __init__(self, process: Process, flow: DeclaredFlow[Any], *, inline: Inline, watcher: Watcher) -> None:
        self._process, self._flow, self._watcher = process, flow, watcher
        self._settler = Settler(process, flow, inline=inline, watcher=watcher)
        self._claims = GroupClaims(process, flow, self._settler)
        #: Held while anything is settled; never while a body runs.
        self._lock = threading.Lock()
        self._settle_by = self._give_back_at = 0.0
        self._has_begun = False

    def run(self, claims: Sequence[Claim]) -> Execution:
        """
        Run the bodies of `claims`, and of the phases that follow inline.

        Returns: the first claim's attempt. Raises: LedgerUnavailable.
        """
        is_alone = len(claims) == 1
        self._claims.take(claims)
        with self._minded(is_alone=is_alone), self._given_up_midway(), DeliverySpan() as span:
            while (body := self._next_body()) is not None:
                # Around the whole delivery of one run; the runs of a group each have a span of their own.
                self._run_body(body, span if is_alone else None)
        return self._settler.executions.get(claims[0].owner) or Execution(None, None)

    @contextmanager
    def _minded(self, *, is_alone: bool) -> Iterator[None]:
        """Until it ends, the minder looks after a group of several; what is left then lapses."""
        if not is_alone:
            self._process.minder.watch(self)
        try:
            yield
        finally:
            if not is_alone:
                self._process.minder.forget(self)
            self._claims.forget()

    @contextmanager
    def _given_up_midway(self) -> Iterator[None]:
        """If the process or the delivery is ended during a body, the group gives up what it holds."""
        try:
            yield
        except Exception:
            # The ledger is away: what is left lapses and is rescued, and its attempts stay counted.
            raise
        except BaseException as gone:
            body = self._claims.body
            with self._lock:
                self._claims.give_up(gone)
            if (shown := harmless(gone, redact if body is None else body.attempt.secrets.redact)) is not gone:
                raise shown from None
            raise

    def _next_body(self) -> Body | None:
        """The body that starts now, after the settling that is due before it; `None` at the end of the group."""
        with self._lock:
            while True:
                self._settle_if_due()
                self._give_back_if_stopping()
                if self._claims.waiting:
                    return self._begin()
                if not self._claims.ended and not self._claims.settle_passed_over():
                    return None

    def _settle_if_due(self) -> None:
        """Settle what has ended if nothing follows it, or if its first would wait too long for the next body."""
        if not self._claims.ended:
            return
        if self._claims.waiting:
            next_phase = self._claims.phase(self._claims.waiting[0])
            if time.monotonic() + self._process.pace.seconds(next_phase.task_name) < self._settle_by:
                return
        self._claims.settle_ended(can_go_on=True)

    def _give_back_if_stopping(self) -> None:
        """A worker that stops begins nothing more, but for the first body of a delivery."""
        if self._claims.waiting and self._has_begun and self._process.stopping():
            self._claims.give_back()

    def _begin(self) -> Body:
        self._has_begun = True
        body = self._claims.begin(self._record)
        self._give_back_at = body.since + GROUP_SECONDS
        return body

    def _run_body(self, body: Body, span: DeliverySpan | None) -> None:
        with ExitStack() as stack:
            around = span or stack.enter_context(DeliverySpan())
            end_span = stack.enter_context(around.phase(body.claim))
            self._watcher.started(body.claim)
            # No other body sees what a body leaves in context variables.
            copy_context().run(self._watcher.perform, body)
            settled = body.execution and body.execution.ended
            if ended := settled or body.ended:
                end_span(ended)

    def _record(self, body: Body, ended: Ended, *, at_once: bool) -> Execution:
        """Have the end of a body recorded, with others or alone; see `body.Record`."""
        claim = body.claim
        self._process.pace.note(self._claims.phase(claim).task_name, time.monotonic() - body.since)
        with self._lock:
            ended = self._with_hooks(claim, ended)
            is_shared = ended.ending in COMPLETE and not ended.writes and not at_once
            if is_shared:
                self._wait_for_others(claim, ended)
            elif self._claims.ended:
                # Nothing that has ended waits for the application's own functions.
                self._claims.settle_ended(can_go_on=True)
            self._give_back_at = time.monotonic() + _SETTLE_SECONDS
        if not is_shared:
            self._settle_alone(claim, ended)
        return self._settler.executions.get(claim.owner) or Execution(claim, ended)

    def _with_hooks(self, claim: Claim, ended: Ended) -> Ended:
        if ended.ending not in COMPLETE:
            return ended
        hooks = self._flow.described(self._process.config).hooks_of_completion(claim)
        return replace(ended, actions=(*ended.actions, *hooks)) if hooks else ended

    def _wait_for_others(self, claim: Claim, ended: Ended) -> None:
        """Let it wait for a common commit; the first says how long."""
        if not self._claims.ended:
            self._settle_by = time.monotonic() + GROUP_SECONDS
        self._claims.ended.append((claim, ended))
        self._claims.body = None

    def _settle_alone(self, claim: Claim, ended: Ended) -> None:
        # Without the lock: the minder gives back what waits here if this has to wait for its row.
        next_claims = self._settler.settle(claim, ended, room=len(self._claims.waiting))
        with self._lock:
            self._claims.take(next_claims)
            self._claims.body = None

    def mind(self, moment: float) -> None:
        """Called by the minder while a body runs: settle and give back what must not wait for its end."""
        # Its own thread is settling; other groups are not to wait for that.
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._claims.body is None:
                return
            if self._claims.ended and moment >= self._settle_by:
                self._claims.settle_ended(can_go_on=False)
            if self._claims.waiting and moment >= self._give_back_at:
                self._claims.give_back()
        finally:
            self._lock.release()
