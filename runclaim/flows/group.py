"""
A group: the claims of one delivery. Bodies run one by one, and those that end well within a moment share a commit.

What a claim of the group does to another is nothing: a lost claim, a failed attempt and whatever writes rows of the
application are settled alone. A group of one is the ordinary case, and settles at once.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from runclaim import logs
from runclaim.errors import ClaimLost, LedgerUnavailable
from runclaim.flows.attempt import Attempt, Ended, Ending
from runclaim.flows.carrying import load
from runclaim.flows.execution import Execution
from runclaim.flows.pace import GROUP_SECONDS
from runclaim.flows.settle import Settled, give_back, give_up, record
from runclaim.flows.telling import harmless
from runclaim.ledger.dispatch import Due
from runclaim.secrets import redact
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runclaim.flows.execution import Watcher
    from runclaim.flows.flow import Flow
    from runclaim.flows.phase import Phase
    from runclaim.flows.runner import Runner
    from runclaim.ledger.claim import Claim
    from runclaim.ledger.complete import Moved, NextPhase

    Inline = Callable[[Phase[Any, Any], Phase[Any, Any]], bool]

logger: Final = logs.logger("runclaim.runner")

_COMPLETE: Final = frozenset({Ending.SUCCESS, Ending.SKIPPED})


@dataclass(frozen=True, slots=True)
class _Body:
    claim: Claim
    attempt: Attempt
    since: float


class Group:
    """The claims of one delivery, from their claim to the end of the last phase that follows inline."""

    def __init__(self, runner: Runner, flow: Flow[Any], *, inline: Inline, watcher: Watcher) -> None:
        self._runner, self._flow, self._inline, self._watcher = runner, flow, inline, watcher
        #: Held while anything is settled; never while a body runs.
        self._lock = threading.Lock()
        self._waiting: deque[Claim] = deque()
        self._ended: list[tuple[Claim, Ended]] = []
        self._settle_by = 0.0
        self._body: _Body | None = None
        self._known: dict[str, dict[str, Any]] = {}
        #: The first attempt, once it is settled.
        self.first: Execution | None = None
        self._first_owner = ""
        self._has_begun = False

    def run(self, claims: Iterable[Claim]) -> None:
        """Run the bodies of `claims`, and of the phases that follow inline. Raises: LedgerUnavailable."""
        self._take(claims)
        if shared := len(self._waiting) > 1:
            self._runner.minder.watch(self)
        try:
            while (body := self._next()) is not None:
                self._run_body(body)
        except Exception:
            # The ledger is away: what is left lapses and is rescued, and its attempts stay counted.
            raise
        except BaseException as gone:
            with self._lock:
                hide = self._abandon(gone)
            if (told := harmless(gone, hide)) is not gone:
                raise told from None
            raise
        finally:
            if shared:
                self._runner.minder.forget(self)
            body = () if self._body is None else (self._body.claim,)
            for left in (*self._waiting, *(claim for claim, _ in self._ended), *body):
                self._runner.keeper.forget(left)

    def _take(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._first_owner = self._first_owner or claim.owner
            phase = self._phase(claim)
            lease, longest = self._runner.lease(phase), self._runner.max_duration(phase)
            self._runner.keeper.watch(claim, lease=lease, max_duration=longest)
            self._waiting.append(claim)

    def _next(self) -> _Body | None:
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
                    self._body = _Body(taken, self._attempt(taken), time.monotonic())
                    return self._body
                if not self._ended:
                    return None

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
            if self._waiting and moment >= self._body.since + GROUP_SECONDS:
                self._give_back()
        finally:
            self._lock.release()

    def _run_body(self, body: _Body) -> None:
        self._watcher.started(body.claim)
        ended = body.attempt.run()
        self._runner.pace.note(self._phase(body.claim).task_name, time.monotonic() - body.since)
        with self._lock:
            self._end(body.claim, ended)
            self._body = None

    def _attempt(self, taken: Claim) -> Attempt:
        return Attempt(
            taken,
            flow=self._flow,
            phase=self._phase(taken),
            database=self._runner.database,
            keeper=self._runner.keeper,
            stopping=self._runner.stopping,
            known_results=self._known.setdefault(taken.run_id, {}),
        )

    def _phase(self, claim: Claim) -> Phase[Any, Any]:
        return self._flow.phases[claim.phase]

    def _end(self, taken: Claim, ended: Ended) -> None:
        if ended.ending in _COMPLETE:
            ended = replace(ended, actions=(*ended.actions, *self._flow.hooks.completed(taken)))
            if not ended.writes:
                self._settle_by = self._settle_by if self._ended else time.monotonic() + GROUP_SECONDS
                self._ended.append((taken, ended))
                return
        # Nothing that has ended waits for the application's own functions.
        if self._ended:
            self._settle_ended(room=True)
        self._settle(taken, ended, room=True)

    def _settle_ended(self, *, room: bool) -> None:
        """Complete what has ended in one commit; each alone where that does not work."""
        ending, self._ended = self._ended, []
        following = self._following_all([claim for claim, _ in ending], room=room)
        try:
            given = [Settled(claim, ended, following[claim.owner]) for claim, ended in ending]
            moved = record(self._runner.database, given, worker=self._runner.worker, patience=self._patience(ending))
        except Exception as error:
            if isinstance(error, LedgerUnavailable):
                self._ended = ending
                raise
            logger.debug("a commit for %d runs failed; each is settled alone", len(ending), exc_info=True)
            for claim, ended in ending:
                self._settle(claim, ended, room=room)
            return
        except BaseException:
            self._ended = ending
            raise
        self._go_on([(claim, ended, moved.get(claim.run_id), following[claim.owner]) for claim, ended in ending])

    def _settle(self, taken: Claim, ended: Ended, *, room: bool) -> None:
        """Settle one attempt in a transaction of its own."""
        patience = self._patience([(taken, ended)])
        if ended.ending in _COMPLETE:
            following = self._following_all([taken], room=room)[taken.owner]
            try:
                given = [Settled(taken, ended, following)]
                found = record(self._runner.database, given, worker=self._runner.worker, patience=patience)
                self._go_on([(taken, ended, found.get(taken.run_id), following)])
            except ClaimLost as lost:
                self._lost(taken, ended, lost)
            except LedgerUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - an in_completion function failed: an error of its attempt
                delay = self._phase(taken).options.backoff.delay(taken.attempt)
                failed = Ended(Ending.RETRY, ended.ran, exception=error, delay=delay, hide=ended.hide)
                self._settle(taken, failed, room=room)
            return
        state = self._give_up(taken, ended, patience=patience)
        if state is RunState.FAILED:
            ended = replace(ended, ending=Ending.FAILURE)
        elif state is None and ended.ending is not Ending.CLAIMLOST:
            ended = replace(ended, ending=Ending.CLAIMLOST)
        self._tell(taken, ended, state)

    def _go_on(self, settled: Iterable[tuple[Claim, Ended, Moved | None, NextPhase | None]]) -> None:
        """After completions: take what follows here, publish what follows elsewhere, ring for what was planned."""
        due, planned = [], 0
        for taken, ended, moved, following in settled:
            if moved is None:
                self._lost(taken, ended, ClaimLost(taken.run_id, taken.phase, taken.fence))
                continue
            # What the next phases ask for by `ctx.result` is at hand; the ledger need not be read.
            self._known.setdefault(taken.run_id, {})[taken.phase] = json.loads(ended.result)
            planned += len(ended.actions)
            self._tell(taken, ended, moved.state)
            if moved.claim is not None:
                self._take([moved.claim])
            elif moved.state is RunState.QUEUED and following is not None:
                named = _due(taken, moved.fence, following.phase, following.queue)
                due.append(load(named, self._flow, project=None, subject=taken.subject, value=taken.input))
        self._runner.publisher.publish(due)
        self._runner.publisher.ring_actions(planned)

    def _lost(self, taken: Claim, ended: Ended, lost: ClaimLost) -> None:
        logger.debug("%s", lost)
        self._tell(taken, replace(ended, ending=Ending.CLAIMLOST, exception=lost), None)

    def _tell(self, taken: Claim, ended: Ended, state: RunState | None) -> None:
        self._runner.keeper.forget(taken)
        if taken.owner == self._first_owner:
            self.first = Execution(taken, ended)
        self._watcher.ended(taken, ended, state)

    def _following_all(self, claims: list[Claim], *, room: bool) -> dict[str, NextPhase | None]:
        """Where each goes on: inline as many as can be started at once here, the others through the broker."""
        found: dict[str, NextPhase | None] = {}
        taken = len(self._waiting)
        for claim in claims:
            after = None if claim.is_last else self._flow.phases.get(claim.phases[claim.cursor + 1])
            here = after is not None and room and taken < self._runner.size(after, inline=self._inline)
            found[claim.owner] = self._runner.following(self._flow, claim, inline=self._inline if here else _nowhere)
            taken += bool(here)
        return found

    def _patience(self, ending: Iterable[tuple[Claim, Ended]]) -> float:
        leases = (self._runner.lease(self._phase(claim)) for claim, _ in ending)
        return min(lease.total_seconds() for lease in leases)

    def _give_back(self) -> None:
        """Release what waits: its body has not begun, so no attempt is burned."""
        waiting, self._waiting = list(self._waiting), deque()
        for claim in waiting:
            self._runner.keeper.forget(claim)
        queued = give_back(self._runner.database, waiting, patience=2.0)
        self._runner.publisher.publish(
            [_due(each, each.fence + 1, each.phase, each.queue) for each in waiting if each.run_id in queued]
        )

    def _give_up(self, taken: Claim, ended: Ended, *, patience: float) -> RunState | None:
        hooks, worker = self._flow.hooks.stopped, self._runner.worker
        return give_up(self._runner.database, taken, ended, hooks=hooks, worker=worker, patience=patience)

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
                self._give_up(taken, self._runner.cut_off(self._phase(taken), taken, gone, hide=hide), patience=2.0)
            if self._ended:
                self._settle_ended(room=False)
            if self._waiting:
                self._give_back()
        except Exception as error:  # noqa: BLE001 - as in any cut, the leases lapse and rescue gives the claims back
            # Without its traceback, which would tell of `gone` too, as it is.
            logger.warning("could not give back what a delivery held (%r); rescue will", error)
        return hide


def _due(claim: Claim, fence: int, phase: str, queue: str | None) -> Due:
    return Due(claim.run_id, fence, claim.flow, phase, queue, claim.key, claim.priority)


def _nowhere(_before: Phase[Any, Any], _after: Phase[Any, Any]) -> bool:
    return False
