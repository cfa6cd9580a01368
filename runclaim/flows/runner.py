"""
The runner: claim what a message names, run the body with no transaction open, settle, go on with the next phase.

All that decides is in the ledger's verbs. The runner only does what their answers say: an empty claim is a
duplicate, a missing completion is a lost claim whose rows are rolled back.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from runclaim import failpoints, logs
from runclaim.errors import ClaimLost, LedgerUnavailable, Released
from runclaim.flows.attempt import Attempt, Ended, Ending
from runclaim.flows.carrying import load
from runclaim.flows.execution import Execution, Unanswered, Watcher
from runclaim.flows.following import following
from runclaim.flows.settle import give_up, record
from runclaim.flows.spans import Told
from runclaim.flows.telling import harmless
from runclaim.keys import nonce
from runclaim.ledger.claim import Claim, Wanted, claim, claimed
from runclaim.ledger.dispatch import Due
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from runclaim.config import Config
    from runclaim.database import Database
    from runclaim.flows.flow import Flow
    from runclaim.flows.keeper import Keeper
    from runclaim.flows.phase import Phase
    from runclaim.flows.publishing import Publisher
    from runclaim.ledger.complete import NextPhase

logger: Final = logs.logger("runclaim.runner")

#: How long a pool child waits to hear that the worker stops when it is ended itself.
_HEARD_SECONDS: Final = 0.5
_COMPLETE: Final = frozenset({Ending.SUCCESS, Ending.SKIPPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Everything a delivery needs. `worker` names this process, `stopping` tells that it shuts down."""

    database: Database
    keeper: Keeper
    publisher: Publisher
    config: Config
    worker: str
    stopping: Callable[[], bool]

    def deliver(
        self,
        flow: Flow[Any],
        phase: Phase[Any, Any],
        run_id: str,
        seen: int,
        *,
        inline: Callable[[Phase[Any, Any], Phase[Any, Any]], bool],
        watcher: Watcher,
    ) -> Execution:
        """
        Run the phase that a message names, and the phases after it that `inline(before, after)` allows.

        Returns: the first attempt. Raises: LedgerUnavailable (Unanswered) when the ledger cannot be reached; the run
        waits.
        """
        current = self._claim(phase, run_id, seen)
        if current is None:
            self.keeper.count("duplicates_refused", flow.name)
        known: dict[str, Any] = {}
        first: Execution | None = None
        with Told() as told:
            while current is not None:
                taken = current
                with told.phase(taken) as tell:
                    its = flow.phases[taken.phase]
                    ended, current = self._attempt(flow, its, taken, known, inline=inline, watcher=watcher)
                    tell(ended)
                first = first or Execution(taken, ended)
                if ended.ending in _COMPLETE:
                    # What the next phases ask for by `ctx.result` is at hand; the ledger need not be read.
                    known[taken.phase] = json.loads(ended.result)
        return first or Execution(None, None)

    def _claim(self, phase: Phase[Any, Any], run_id: str, seen: int) -> Claim | None:
        wanted = [Wanted(run_id, seen, nonce())]

        def work(conn: Connection) -> list[Claim]:
            found = claim(
                conn,
                wanted,
                flow=phase.flow,
                phase=phase.name,
                worker=self.worker,
                lease=self._lease(phase),
                max_duration=self._max_duration(phase),
                waits_for=phase.options.on,
            )
            failpoints.hit("claim.before_commit")
            return found

        try:
            found = self.database.run(work, read_back=lambda conn: claimed(conn, wanted) or None)
        except LedgerUnavailable as away:
            raise Unanswered(str(away), wanted[0].owner) from away
        failpoints.hit("claim.after_commit")
        return found[0] if found else None

    def _attempt(
        self,
        flow: Flow[Any],
        phase: Phase[Any, Any],
        taken: Claim,
        known: dict[str, Any],
        *,
        inline: Callable[[Phase[Any, Any], Phase[Any, Any]], bool],
        watcher: Watcher,
    ) -> tuple[Ended, Claim | None]:
        """Run and settle one claim; returns how it ended and the next claim, if it was taken at once."""
        attempt = Attempt(
            taken,
            flow=flow,
            phase=phase,
            database=self.database,
            keeper=self.keeper,
            stopping=self.stopping,
            known_results=known,
        )
        self.keeper.watch(taken, lease=self._lease(phase), max_duration=self._max_duration(phase))
        watcher.started(taken)
        try:
            ended = attempt.run()
            ended, state, claimed_next = self._settle(flow, phase, taken, ended, inline=inline)
        except Exception:
            # The ledger is away: the claim lapses and is rescued, and the attempt stays counted.
            raise
        except BaseException as gone:
            self._cut_off(flow, phase, taken, gone, attempt)
            if (told := harmless(gone, attempt.secrets.redact)) is not gone:
                raise told from None
            raise
        finally:
            self.keeper.forget(taken)
        watcher.ended(taken, ended, state)
        return ended, claimed_next

    def _settle(
        self,
        flow: Flow[Any],
        phase: Phase[Any, Any],
        taken: Claim,
        ended: Ended,
        *,
        inline: Callable[[Phase[Any, Any], Phase[Any, Any]], bool],
    ) -> tuple[Ended, RunState | None, Claim | None]:
        patience = self._lease(phase).total_seconds()
        if ended.ending in _COMPLETE:
            try:
                after = self._following(flow, phase, taken, inline=inline)
                ended = replace(ended, actions=(*ended.actions, *flow.hooks.completed(taken)))
                moved = record(self.database, taken, ended, worker=self.worker, following=after, patience=patience)
            except ClaimLost as lost:
                logger.debug("%s", lost)
                return replace(ended, ending=Ending.CLAIMLOST, exception=lost), None, None
            except LedgerUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - an in_completion function failed: an error of its attempt
                delay = phase.options.backoff.delay(taken.attempt)
                ended = Ended(Ending.RETRY, ended.ran, exception=error, delay=delay, hide=ended.hide)
            else:
                if moved.state is RunState.QUEUED and after is not None:
                    self._publish(flow, taken, after, moved.fence)
                self.publisher.ring_actions(len(ended.actions))
                return ended, moved.state, moved.claim
        state = give_up(self.database, taken, ended, hooks=flow.hooks.stopped, worker=self.worker, patience=patience)
        if state is RunState.FAILED:
            ended = replace(ended, ending=Ending.FAILURE)
        elif state is None and ended.ending is not Ending.CLAIMLOST:
            ended = replace(ended, ending=Ending.CLAIMLOST)
        return ended, state, None

    def _cut_off(
        self, flow: Flow[Any], phase: Phase[Any, Any], taken: Claim, gone: BaseException, attempt: Attempt
    ) -> None:
        """
        The process or the delivery ends in the middle of an attempt: settle it, if the ledger answers.

        A worker that shuts down gives the attempt back. Whatever else ends it (`sys.exit` in the body, a time
        limit) is an error of the attempt: given back, such a body would start again for ever.
        """
        delay, hide = phase.options.backoff.delay(taken.attempt), attempt.secrets.redact
        ended = Ended(Ending.RETRY, timedelta(0), exception=gone, delay=delay, hide=hide)
        if self._is_stopping(within=_HEARD_SECONDS):
            why = f"{type(gone).__name__} ended the delivery"
            released = Released(taken.run_id, taken.phase, taken.fence, why)
            ended = Ended(Ending.RELEASED, timedelta(0), exception=released)
        try:
            give_up(self.database, taken, ended, hooks=flow.hooks.stopped, worker=self.worker, patience=2.0)
        except Exception as error:  # noqa: BLE001 - as in any cut, the lease lapses and rescue gives the claim back
            # Without its traceback, which would tell of `gone` too, as it is.
            logger.warning("could not give back %s/%s (%r); rescue will", taken.run_id, taken.phase, error)

    def _is_stopping(self, *, within: float) -> bool:
        """A signal to the whole process group may reach a pool child before its parent has told it to stop."""
        ends = time.monotonic() + within
        while not (stopping := self.stopping()) and time.monotonic() < ends:
            time.sleep(0.02)
        return stopping

    def _following(
        self,
        flow: Flow[Any],
        phase: Phase[Any, Any],
        taken: Claim,
        *,
        inline: Callable[[Phase[Any, Any], Phase[Any, Any]], bool],
    ) -> NextPhase | None:
        after = None if taken.is_last else flow.phases.get(taken.phases[taken.cursor + 1])
        at_once = after is not None and inline(phase, after) and not self.stopping()
        return following(flow, taken, config=self.config, owner=nonce() if at_once else None)

    def _publish(self, flow: Flow[Any], taken: Claim, after: NextPhase, fence: int) -> None:
        due = Due(taken.run_id, fence, taken.flow, after.phase, after.queue, taken.key, taken.priority)
        self.publisher.publish([load(due, flow, project=None, subject=taken.subject, value=taken.input)])

    def _lease(self, phase: Phase[Any, Any]) -> timedelta:
        return phase.options.lease or self.config.lease

    def _max_duration(self, phase: Phase[Any, Any]) -> timedelta:
        return phase.options.max_duration or self.config.max_duration
