"""
The way to the broker: small messages that name runs, over connections with time-outs of our own.

The run is in the ledger before anything is published, so a broker that does not answer is no error of the
caller's: it is said once in the log, left alone for a while, and the ledger dispatches the run later.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from celery.exceptions import QueueNotFound
from kombu.pools import ProducerPool

from runclaim import logs
from runclaim.flows.doorbell import Doorbell
from runclaim.flows.publishing import together
from runclaim.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from celery import Celery
    from kombu import Producer

    from runclaim.config import Config
    from runclaim.flows.flow import Flow
    from runclaim.ledger.dispatch import Due

logger: Final = logs.logger("runclaim.broker")

#: After a failure nobody waits for the broker again for this long; dispatch publishes what was left out.
_QUIET_SECONDS: Final = 5.0
_CONNECTIONS: Final = 10
#: The task that sends planned actions; one message for each action, up to so many, so that they go side by side.
DELIVER: Final = "runclaim.deliver"
#: The task that tells listeners.
TELL: Final = "runclaim.tell"
_MOST_RINGS: Final = 4
#: What each kind of transport calls its time-outs; other kinds are left as the application has them.
_TIMEOUTS: Final = {
    "redis": ("socket_timeout", "socket_connect_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
}


class Broker:
    """Publishes for one Celery app. Safe across threads and forks."""

    def __init__(self, app: Celery, config: Callable[[], Config], flows: Callable[[], Mapping[str, Flow[Any]]]) -> None:
        self._app, self._config, self._flows = app, config, flows
        self._lock = threading.Lock()
        self._pool: Any = None
        self._pid = 0
        self._quiet_until = 0.0
        self._doorbell = Doorbell(self.publish)

    @property
    def is_left_alone(self) -> bool:
        """Whether it did not answer just now: nothing is sent for a few seconds."""
        return time.monotonic() < self._quiet_until

    def publish(self, due: Collection[Due]) -> int:
        """Send messages that name them all; returns how many runs went. Never raises for a silent broker."""
        if not due or self.is_left_alone:
            return 0
        known = [here for each in due if (here := self._here(each)) is not None]
        # What this release does not know waits in the ledger for one that does; it holds up nobody.
        sent = len(due) - len(known)
        messages = deque(together(known, may_share=self._may_share()))

        def send(producer: Producer) -> None:
            nonlocal sent
            while messages:
                try:
                    self._send(producer, messages[0])
                except QueueNotFound as error:
                    # A mistake in one route holds up nobody else.
                    logger.warning("run %s waits: %s. Add the queue to task_queues", messages[0][0].run_id, error)
                sent += len(messages.popleft())

        if (error := self.use(send)) is not None:
            logger.warning(
                "the broker does not answer (%s); %d runs are queued in the ledger and will be dispatched",
                error,
                len(due) - sent,
            )
        return sent

    def publish_soon(self, due: Collection[Due]) -> None:
        """As `publish`; what is enqueued within a few milliseconds shares messages. Never raises."""
        if not self.is_left_alone:
            self._doorbell.ring(due)

    def flush(self) -> None:
        """Publish now what was to be published soon. For the end of a process."""
        self._doorbell.flush()

    def ring_actions(self, many: int) -> None:
        """Say that so many actions are to be sent. Never raises; what is not said is found by beat."""
        if many > 0 and (error := self._ring(DELIVER, min(many, _MOST_RINGS))) is not None:
            logger.warning("the broker does not answer (%s); beat will send %d planned actions", error, many)

    def ring_listeners(self) -> None:
        """Say that something happened. Never raises; what is not said is found by beat."""
        if (error := self._ring(TELL, 1)) is not None:
            logger.warning("the broker does not answer (%s); beat will have the listeners told", error)

    def _ring(self, task: str, times: int) -> Exception | None:
        if self.is_left_alone:
            return None

        def send(producer: Producer) -> None:
            for _ in range(times):
                self._app.tasks[task].apply_async(producer=producer, retry=False, ignore_result=True)

        return self.use(send)

    def use(self, work: Callable[[Producer], None]) -> Exception | None:
        """
        Do `work` with a producer, once more over a fresh connection if the first had gone stale while idle.

        Returns: the error of a broker that does not answer; it is then left alone for a few seconds.
        """
        try:
            with self.producer() as producer:
                work(producer)
        except Exception as stale:  # noqa: BLE001 - every transport has its own; the run is safe in the ledger
            # A broker that hangs gets no second try: somebody waits for this call.
            return self._leave_alone(stale) if _hangs(stale) else self._use_fresh(work)
        return None

    def _use_fresh(self, work: Callable[[Producer], None]) -> Exception | None:
        try:
            with self.producer(fresh=True) as producer:
                work(producer)
        except Exception as error:  # noqa: BLE001 - as above
            return self._leave_alone(error)
        return None

    def _leave_alone(self, error: Exception) -> Exception:
        self._quiet_until = time.monotonic() + _QUIET_SECONDS
        return error

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

    def _send(self, producer: Producer, named: Sequence[Due]) -> None:
        due, others = named[0], len(named) - 1
        options: dict[str, Any] = {} if due.queue is None else {"queue": due.queue}
        if due.priority:
            options["priority"] = due.priority
        task: Any = self._app.tasks[f"{due.flow}.{due.phase}"]
        task.apply_async(
            args=([[each.run_id, each.fence] for each in named],) if others else (due.run_id, due.fence),
            kwargs={} if due.carried is None else {"carried": due.carried},
            producer=producer,
            argsrepr=redact(f"{due.key} and {others} more" if others else due.key),
            kwargsrepr="{}",
            retry=False,
            ignore_result=True,
            **options,
        )

    @contextmanager
    def producer(self, *, fresh: bool = False) -> Iterator[Producer]:
        """A producer with our time-outs; `fresh` throws the process's old connections away first."""
        if self._pid != os.getpid():
            # The parent's connections, and a lock that a thread of its may have held at the fork for ever.
            self._lock, self._pool, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if fresh or self._pool is None:
                if self._pool is not None:
                    self._pool.force_close_all()
                self._pool = self._new_pool()
            pool = self._pool
        with pool.acquire(block=True, timeout=self._config().publish_timeout.total_seconds()) as producer:
            yield producer

    def close(self) -> None:
        """Close this process's connections."""
        if self._pid == os.getpid():
            with self._lock:
                pool, self._pool = self._pool, None
            if pool is not None:
                pool.force_close_all()

    def _new_pool(self) -> Any:
        seconds = self._config().publish_timeout.total_seconds()
        connection = self._app.connection_for_write(connect_timeout=seconds)
        # Each host once: kombu would wait two seconds and try again before it says that nobody listens.
        once = {"max_retries": max(0, len(connection.alt) - 1), "interval_start": 0, "interval_step": 0}
        timeouts = dict.fromkeys(_TIMEOUTS.get(connection.transport.driver_type, ()), seconds)
        connection.transport_options = {**(connection.transport_options or {}), **once, **timeouts}
        return ProducerPool(connection.Pool(_CONNECTIONS), limit=_CONNECTIONS, Producer=self._app.amqp.Producer)


def is_ours(app: Celery, name: str) -> bool:
    """Whether the task of that name is runclaim's, and not one of the application's that has taken the name."""
    return getattr(app.tasks.get(name), "of_runclaim", False) is True


def is_limited(app: Celery, task: Any) -> bool:
    """Whether Celery limits the time or the rate of this task's messages: then each names one run."""
    limits = (task.time_limit, task.soft_time_limit, task.rate_limit)
    return any(limits) or bool(app.conf.task_time_limit or app.conf.task_soft_time_limit)


def _hangs(error: BaseException | None) -> bool:
    while error is not None:
        if "Timeout" in type(error).__name__ or isinstance(error, TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False
