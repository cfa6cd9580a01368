"""
Flower's view: every attempt of a phase is a task there, with its run key and its verdict.

Celery itself reports the phase a message names. The phases that follow in the same delivery, and verdicts
that Celery does not know, are sent as task events; only while a monitor listens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast

from celery.utils import uuid

from runclaim import logs
from runclaim.flows.run.ending import Ended, Ending
from runclaim.secrets import redact
from runclaim.states import RunState
from runclaim.tasks.body_request import own_request, request_of
from runclaim.tasks.body_task import is_retried, perform, tracer_of, verdict_text
from runclaim.tasks.handlers import is_hung_on
from runclaim.tracebacks import harmless, line_of

if TYPE_CHECKING:
    from kombu import Producer

    from runclaim.flows.run.body import Body
    from runclaim.ledger.fence import Claim
    from runclaim.tasks.runtime import Runtime

logger: Final = logs.logger("runclaim.worker")

#: What Celery has words for; every other ending becomes a state of its own name.
_EVENTS: Final = {
    Ending.SUCCESS: "task-succeeded",
    Ending.SKIPPED: "task-succeeded",
    Ending.FAILURE: "task-failed",
    Ending.RETRY: "task-retried",
}
#: What Celery itself tells of a message's own task.
_BY_CELERY: Final = frozenset({Ending.SUCCESS, Ending.SKIPPED, Ending.FAILURE})


class Monitor:
    """
    Watches one delivery. `request` is Celery's; its own attempt is the first.

    With `carries`, no signals are sent for the message itself: every body is a task of its own.
    """

    def __init__(self, runtime: Runtime, request: Any, *, carries: bool = False) -> None:
        self._runtime, self._request, self._carries = runtime, request, carries
        self._is_first = True
        #: Owner of a claim → its task's id; several attempts may be settled together.
        self._task_ids: dict[str, str] = {}
        #: What the tracer of the first body has returned, where there was one.
        self.first: Any = None

    @property
    def hostname(self) -> str | None:
        """The worker's name."""
        return cast("str | None", self._request.hostname)

    def started(self, claim: Claim) -> None:
        """An attempt starts; Celery has already told of the first, but for its key where the message names several."""
        is_first, self._is_first = self._is_first, False
        task_id = self._task_ids[claim.owner] = self._request.id if is_first else uuid()
        if not self._is_heard and not is_first:
            return
        name, key = f"{claim.flow}.{claim.phase}", redact(claim.key)
        if not is_first or getattr(self._request, "argsrepr", key) != key:
            self._send("task-received", task_id, name=name, args=key, kwargs="{}", retries=claim.attempt - 1)
        if not is_first:
            self._send("task-started", task_id)

    def perform(self, body: Body) -> None:
        """Run the body: as a task of its own where the application would notice, and record its end."""
        claim = body.claim
        task, task_id = self._runtime.app.tasks[f"{claim.flow}.{claim.phase}"], self._task_ids[claim.owner]
        is_first = task_id == self._request.id
        if self._carries or (not is_first and is_hung_on(task, tracer_of(task))):
            result = perform(task, body, request_of(vars(self._request), claim, task_id))
            self.first = result if is_first else self.first
        elif is_first and claim.headers is None and list(self._request.args[:1]) == [claim.run_id]:
            body.record(body.run())
        else:
            with own_request(task, lambda: request_of(vars(self._request), claim, task_id)):
                ended = body.run()
            body.record(ended)

    def ended(self, claim: Claim, ended: Ended, state: RunState | None) -> None:
        """An attempt ended; Celery itself tells of a first one that succeeded or failed."""
        task_id = self._task_ids.pop(claim.owner, None) or uuid()
        # Celery logs the failure of a task, with its traceback; no one else would log that of a phase that followed.
        is_silent = ended.ending is Ending.FAILURE and not self._carries and task_id != self._request.id
        error = None if ended.exception is None or not is_silent else harmless(ended.exception, ended.hide)
        logger.log(
            logging.ERROR if is_silent else logging.INFO,
            "%s/%s %s: %s, attempt %d, %.3f s, run %s",
            claim.flow,
            claim.phase,
            claim.key,
            ended.ending,
            claim.attempt,
            ended.ran.total_seconds(),
            state or "is no longer ours",
            # Of a group, one run may be settled while the body of another runs.
            extra=logs.of(claim),
            exc_info=error,
        )
        if state is not RunState.RUNNING:
            self._runtime.ring_listeners()
        if not self._is_heard:
            return
        by_celery = ended.ending in _BY_CELERY or (self._carries and is_retried(ended, state))
        if task_id != self._request.id or not by_celery:
            exception = None if ended.exception is None else line_of(ended.exception, ended.hide)
            self._verdict(
                task_id, ended.ending, exception, verdict_text(ended.ending, state), ended.ran.total_seconds()
            )

    def refused(self, why: str) -> None:
        """Tell that Celery's own task was a duplicate."""
        self._verdict(self._request.id, Ending.DUPLICATE, None, why, 0.0)

    def _verdict(self, task_id: str, ending: Ending, exception: str | None, result: str, seconds: float) -> None:
        # `exception` as `tracebacks.line_of` makes it.
        fields: dict[str, Any] = {"result": result, "runtime": seconds}
        if exception is not None:
            fields |= {"exception": exception, "traceback": ""}
        self._send(_EVENTS.get(ending, f"task-{ending}"), task_id, **fields)

    @property
    def _is_heard(self) -> bool:
        # A monitor that cannot be told never holds up a run.
        return self._runtime.flags.events and not self._runtime.broker.is_left_alone

    def _send(self, kind: str, task_id: str, **fields: Any) -> None:
        if not self._is_heard:
            return

        def send(producer: Producer) -> None:
            dispatcher = self._runtime.app.events.Dispatcher(
                producer.connection, self._request.hostname, enabled=True, channel=producer.channel
            )
            dispatcher.send(kind, uuid=task_id, **fields)

        if (error := self._runtime.broker.use(send)) is not None:
            logger.debug("task event %s was not sent: %s", kind, error)
