"""
The way to the broker: one small message for each run, over connections with time-outs of our own.

The run is in the ledger before anything is published, so a broker that does not answer is no error of the
caller's: it is said once in the log, left alone for a while, and the ledger dispatches the run later.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from kombu.pools import ProducerPool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from celery import Celery
    from kombu import Producer

    from runclaim.config import Config
    from runclaim.ledger.dispatch import Due

logger: Final = logging.getLogger("runclaim.broker")

#: After a failure nobody waits for the broker again for this long; dispatch publishes what was left out.
_QUIET_SECONDS: Final = 5.0
_CONNECTIONS: Final = 10


class Broker:
    """Publishes for one Celery app. Safe across threads and forks."""

    def __init__(self, app: Celery, config: Callable[[], Config]) -> None:
        self._app, self._config = app, config
        self._lock = threading.Lock()
        self._pool: Any = None
        self._pid = 0
        self._quiet_until = 0.0

    def publish(self, due: Collection[Due]) -> int:
        """Send one message for each; returns how many went. Never raises for a broker that does not answer."""
        if not due or time.monotonic() < self._quiet_until:
            return 0
        known = [each for each in due if self._knows(each)]
        # What this release does not know waits in the ledger for one that does; it holds up nobody.
        sent = unknown = len(due) - len(known)
        for fresh in (False, True):
            try:
                with self.producer(fresh=fresh) as producer:
                    for each in known[sent - unknown :]:
                        self._send(producer, each)
                        sent += 1
            except Exception as error:  # noqa: BLE001 - every transport has its own; the run is safe in the ledger
                # A connection that went stale while idle gets one fresh try; a broker that hangs does not.
                if fresh or isinstance(error, TimeoutError) or _hangs(error):
                    self._quiet_until = time.monotonic() + _QUIET_SECONDS
                    logger.warning(
                        "the broker does not answer (%s); %d runs are queued in the ledger and will be dispatched",
                        error,
                        len(due) - sent,
                    )
                    break
            else:
                break
        return sent

    def _knows(self, due: Due) -> bool:
        if f"{due.flow}.{due.phase}" in self._app.tasks:
            return True
        logger.warning("run %s waits in phase %s.%s, which this release does not have", due.run_id, due.flow, due.phase)
        return False

    def _send(self, producer: Producer, due: Due) -> None:
        options: dict[str, Any] = {} if due.queue is None else {"queue": due.queue}
        if due.priority:
            options["priority"] = due.priority
        task: Any = self._app.tasks[f"{due.flow}.{due.phase}"]
        task.apply_async(
            args=(due.run_id, due.fence),
            producer=producer,
            argsrepr=due.key,
            kwargsrepr="{}",
            serializer="json",
            retry=False,
            ignore_result=True,
            **options,
        )

    @contextmanager
    def producer(self, *, fresh: bool = False) -> Iterator[Producer]:
        """A producer with our time-outs; `fresh` throws the process's old connections away first."""
        with self._lock:
            if fresh or self._pool is None or self._pid != os.getpid():
                if self._pool is not None and self._pid == os.getpid():
                    self._pool.force_close_all()
                self._pool, self._pid = self._new_pool(), os.getpid()
            pool = self._pool
        with pool.acquire(block=True, timeout=self._config().publish_timeout.total_seconds()) as producer:
            yield producer

    def _new_pool(self) -> Any:
        seconds = self._config().publish_timeout.total_seconds()
        connection = self._app.connection_for_write(
            connect_timeout=seconds,
            transport_options={
                "socket_connect_timeout": seconds,
                "socket_timeout": seconds,
                "retry_on_timeout": False,
                "read_timeout": seconds,
                "write_timeout": seconds,
            },
        )
        return ProducerPool(connection.Pool(_CONNECTIONS), limit=_CONNECTIONS, Producer=self._app.amqp.Producer)


def _hangs(error: BaseException | None) -> bool:
    while error is not None:
        if "Timeout" in type(error).__name__ or isinstance(error, TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False
