"""
The way to the broker: small messages that name runs, over connections with time-outs of our own.

The run is in the ledger before anything is published, so a broker that does not answer is not an error of the
caller's: it is said once in the log, left alone for a while, and the ledger dispatches the run later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from celery.app.task import Task

from runclaim import logs
from runclaim.connections import Connections, Mistake
from runclaim.flows.messages.doorbell import Doorbell
from runclaim.flows.messages.publisher import together
from runclaim.secrets import redact
from runclaim.urls import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from celery import Celery
    from kombu import Producer

    from runclaim.config import Config
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.dispatch import Due

logger: Final = logs.logger("runclaim.broker")

#: The task that sends planned actions; one message for each action, up to this many, so that they are sent in parallel.
DELIVER: Final = "runclaim.deliver"
#: The task that tells listeners.
TELL: Final = "runclaim.tell"
_MOST_RINGS: Final = 4


class Broker:
    """Publishes for one Celery app. Safe across threads and forks."""

    def __init__(
        self, app: Celery, config: Callable[[], Config], flows: Callable[[], Mapping[str, DeclaredFlow[Any]]]
    ) -> None:
        self._app, self._config, self._flows = app, config, flows
        self._connections = Connections(app, config)
        self._doorbell = Doorbell(self.publish)

    @property
    def is_left_alone(self) -> bool:
        """Whether it did not answer just now: nothing is sent for a few seconds."""
        return self._connections.is_left_alone

    @property
    def is_eager(self) -> bool:
        """Whether bodies run where they are published, as the application's tests may have it."""
        return bool(self._app.conf.task_always_eager)

    def publish(self, due: Collection[Due]) -> int:
        """Send messages that name them all; returns how many runs went. Never raises for a silent broker."""
        if not due or (self.is_left_alone and not self.is_eager):
            return 0
        known = [here for each in due if (here := self._here(each)) is not None]
        messages = together(known, may_share=self._may_share())
        # What this release does not know waits in the ledger for one that does; it delays no other run.
        unknown = len(due) - len(known)
        if self.is_eager:
            self._run_here(messages)
            return len(due)
        sent, error = self._publish(deque(messages))
        if error is not None:
            logger.warning(
                "the broker does not answer (%s); runs queued in the ledger instead: %d. A beat on the ledger %s will"
                " dispatch them",
                error,
                len(known) - sent,
                masked(self._config().database_url),
            )
        return unknown + sent

    def _publish(self, messages: deque[list[Due]]) -> tuple[int, Exception | None]:
        """How many runs were published or wait for a broken queue, and the error of a broker that does not answer."""
        sent, refused = 0, set()

        def send(producer: Producer) -> None:
            nonlocal sent
            while messages:
                if _lane(messages[0]) not in refused:
                    self._send(producer, messages[0])
                sent += len(messages.popleft())

        while messages:
            if not isinstance(error := self.use(send), Mistake):
                return sent, error
            refused.add(_lane(messages[0]))
            _warn(error, messages)
        return sent, None

    def _run_here(self, messages: Iterable[list[Due]]) -> None:
        for named in messages:
            try:
                self._send(None, named, throw=False)
            except Exception:
                # As with a worker, the caller does not see it: the ledger and the log say what became of the run.
                logger.warning(
                    "run %s was not executed by the process that enqueued it", named[0].run_id, exc_info=True
                )

    def publish_soon(self, due: Collection[Due]) -> None:
        """As `publish`; what is enqueued within a few milliseconds shares messages. Never raises."""
        if self.is_eager:
            self.publish(due)
        elif not self.is_left_alone:
            self._doorbell.ring(due)

    def flush(self) -> None:
        """Publish now what was to be published soon. For the end of a process."""
        self._doorbell.flush()

    def ring_actions(self, many: int) -> None:
        """Have this many actions sent. Never raises; beat finds what is missed."""
        if many > 0:
            self._ring(DELIVER, min(many, _MOST_RINGS), f"beat will have {many} planned actions sent")

    def ring_listeners(self) -> None:
        """Say that something happened. Never raises; what is not said is found by beat."""
        self._ring(TELL, 1, "beat will have the listeners told")

    def _ring(self, task: str, times: int, otherwise: str) -> None:
        def send(producer: Producer | None, **how: Any) -> None:
            for _ in range(times):
                self._app.tasks[task].apply_async(producer=producer, retry=False, ignore_result=True, **how)

        if self.is_eager:
            send(None, throw=False)
        elif self.is_left_alone or (error := self.use(send)) is None:
            return
        elif isinstance(error, Mistake):
            logger.warning("%s cannot be sent: %s. Fix its queue or its route", task, redact(repr(error.__cause__)))
        else:
            logger.warning("the broker does not answer (%s); %s", error, otherwise)

    def use(self, work: Callable[[Producer], None]) -> Exception | None:
        """Do `work` with a producer; see `Connections.use`."""
        return self._connections.use(work)

    def _here(self, due: Due) -> Due | None:
        """The message as this release sends it: to the queue that the phase has here, whatever was recorded."""
        flow = self._flows().get(due.flow)
        phase = None if flow is None else flow.phases.get(due.phase)
        if phase is None or not is_ours(self._app, phase.task_name):
            logger.warning(
                "run %s waits in phase %s.%s, which this release does not have", due.run_id, due.flow, due.phase
            )
            return None
        return due if due.queue == phase.options.queue else replace(due, queue=phase.options.queue)

    def _may_share(self) -> Callable[[Due], bool]:
        """Whether a message may name more runs than one: not where Celery itself counts or times each message."""
        grouped = self._config().grouped

        @cache
        def shares(flow: str, phase: str) -> bool:
            return grouped and not is_limited(self._app, self._app.tasks[f"{flow}.{phase}"])

        return lambda due: not due.alone and due.carried is None and shares(due.flow, due.phase)

    def _send(self, producer: Producer | None, named: Sequence[Due], **how: Any) -> None:
        due, others = named[0], len(named) - 1
        label = due.key or due.run_id
        options: dict[str, Any] = how if due.queue is None else how | {"queue": due.queue}
        if due.priority is not None:
            options["priority"] = due.priority
        task: Any = self._app.tasks[f"{due.flow}.{due.phase}"]
        # Past an `apply_async` of the application's: that was called once, where the run was enqueued.
        send: Any = Task.apply_async
        send(
            task,
            args=([[each.run_id, each.fence] for each in named],) if others else (due.run_id, due.fence),
            kwargs={} if due.carried is None else {"carried": due.carried},
            producer=producer,
            argsrepr=redact(f"{label} and {others} more" if others else label),
            kwargsrepr="{}",
            retry=False,
            ignore_result=True,
            **options,
        )

    def close(self) -> None:
        """Close this process's connections."""
        self._connections.close()


def _lane(named: Sequence[Due]) -> tuple[str, str, str | None]:
    return named[0].flow, named[0].phase, named[0].queue


def _warn(mistake: Mistake, messages: Collection[Sequence[Due]]) -> None:
    lane, *_ = {_lane(named): None for named in messages}
    waiting = [each.run_id for named in messages if _lane(named) == lane for each in named]
    flow, phase, queue = lane
    logger.warning(
        "run %s%s cannot be sent to phase %s.%s, queue %s: %s. Fix that queue or route; dispatch will send it then",
        waiting[0],
        f" and {len(waiting) - 1} more" if waiting[1:] else "",
        flow,
        phase,
        queue or "of its route",
        redact(repr(mistake.__cause__)),
    )


def is_ours(app: Celery, name: str) -> bool:
    """Whether the task of that name is runclaim's, and not one of the application's that has taken the name."""
    return getattr(app.tasks.get(name), "of_runclaim", False) is True


def is_limited(app: Celery, task: Any) -> bool:
    """Whether Celery limits the time or the rate of this task's messages: then each names one run."""
    own = any((task.time_limit, task.soft_time_limit, task.rate_limit))
    # In a pool child, what remote control has told the main process.
    remote = task.remote_limit.is_set
    return (own if remote is None else remote) or bool(app.conf.task_time_limit or app.conf.task_soft_time_limit)
