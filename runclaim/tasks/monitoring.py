"""
Flower's view: every attempt of a phase is a task there, with its run key and its verdict.

Celery itself reports the phase a message names. The phases that follow in the same delivery, and verdicts
that Celery does not know, are sent as task events; only while somebody listens.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from celery.utils import uuid

from runclaim import logs
from runclaim.flows.attempt import Ended, Ending
from runclaim.flows.telling import shown
from runclaim.secrets import redact
from runclaim.states import RunState

if TYPE_CHECKING:
    from kombu import Producer

    from runclaim.ledger.claim import Claim
    from runclaim.tasks.runtime import Runtime

logger: Final = logs.logger("runclaim.worker")

#: What Celery has words for; every other ending becomes a state of its own name.
_EVENTS: Final = {
    Ending.SUCCESS: "task-succeeded",
    Ending.SKIPPED: "task-succeeded",
    Ending.FAILURE: "task-failed",
    Ending.RETRY: "task-retried",
}


class Monitor:
    """Watches one delivery. `request` is Celery's; its own attempt is the first."""

    def __init__(self, runtime: Runtime, request: Any) -> None:
        self._runtime, self._request = runtime, request
        self._task_id: str = request.id
        self._is_first = True
        self._started_at = time.monotonic()

    def started(self, claim: Claim) -> None:
        """An attempt starts; Celery has already told of the first."""
        self._started_at = time.monotonic()
        if self._is_first:
            return
        self._task_id = uuid()
        name = f"{claim.flow}.{claim.phase}"
        self._send("task-received", name=name, args=redact(claim.key), kwargs="{}", retries=claim.attempt - 1)
        self._send("task-started")

    def ended(self, claim: Claim, ended: Ended, state: RunState | None) -> None:
        """An attempt ended; Celery itself tells of a first one that succeeded or failed."""
        told_by_celery = self._is_first and ended.ending in {Ending.SUCCESS, Ending.SKIPPED, Ending.FAILURE}
        self._is_first = False
        logger.info(
            "%s/%s %s: %s, attempt %d, %.3f s, run %s",
            claim.flow,
            claim.phase,
            claim.key,
            ended.ending,
            claim.attempt,
            ended.ran.total_seconds(),
            state or "is no longer ours",
        )
        if not told_by_celery:
            told = None if ended.exception is None else shown(ended.exception, ended.hide)
            self.verdict(ended.ending, told, said(ended.ending, state))
        if state is not RunState.RUNNING:
            self._runtime.ring_listeners()

    def verdict(self, ending: Ending, exception: str | None, result: str) -> None:
        """Tell how the current task ended; `exception` as `telling.shown` makes it."""
        fields: dict[str, Any] = {"result": result, "runtime": time.monotonic() - self._started_at}
        if exception is not None:
            fields |= {"exception": exception, "traceback": ""}
        self._send(_EVENTS.get(ending, f"task-{ending}"), **fields)

    def _send(self, kind: str, **fields: Any) -> None:
        # A monitor that cannot be told never holds up a run.
        if not self._runtime.flags.events or self._runtime.broker.is_left_alone:
            return

        def send(producer: Producer) -> None:
            dispatcher = self._runtime.app.events.Dispatcher(
                producer.connection, self._request.hostname, enabled=True, channel=producer.channel
            )
            dispatcher.send(kind, uuid=self._task_id, **fields)

        if (error := self._runtime.broker.use(send)) is not None:
            logger.debug("task event %s was not sent: %s", kind, error)


def said(ending: Ending, state: RunState | None) -> str:
    """The words of Flower's result column."""
    return f"{ending}; run {state}" if state else str(ending)
