"""
Connections to the broker, with time-outs of our own, and whose mistake an error is.

A broker that does not answer is left alone for a while. What a queue, a route or a serializer refuses concerns the
messages that go there and no others.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from contextlib import contextmanager, suppress
from traceback import walk_tb
from typing import TYPE_CHECKING, Any, Final

from kombu.exceptions import SerializationError, SerializerNotInstalled
from kombu.pools import ProducerPool

from runclaim.errors import ConfigError
from runclaim.pause import Pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery
    from kombu import Producer

    from runclaim.config import Config

#: After a failure, no call waits for the broker again for this long; dispatch publishes what was left out.
_QUIET_SECONDS: Final = 5.0
_CONNECTIONS: Final = 10
#: What each kind of transport calls its time-outs; other kinds are left as the application has them.
_TIMEOUTS: Final = {
    "redis": ("socket_timeout", "socket_connect_timeout"),
    "amqp": ("read_timeout", "write_timeout"),
}
#: Transports with the client redis.
_OF_REDIS: Final = frozenset({"redis", "rediss", "sentinel"})
#: What Redis says of one key. Its other errors are of the whole server: out of memory, loading, a replica.
_OF_ONE_KEY: Final = ("WRONGTYPE", "NOPERM")


class Mistake(Exception):
    """What keeps one message from its queue; `__cause__` says why. The broker answers; other queues work."""


class Connections:
    """Of one process to one app's broker. Safe across threads and forks."""

    def __init__(self, app: Celery, config: Callable[[], Config]) -> None:
        self._app, self._config = app, config
        self._lock = threading.Lock()
        self._pool: Any = None
        self._pid = 0
        self._quiet = Pause(_QUIET_SECONDS)

    @property
    def is_left_alone(self) -> bool:
        """Whether the broker did not answer just now: nothing is sent for a few seconds."""
        return self._quiet.left > 0

    def use(self, work: Callable[[Producer], None]) -> Exception | None:
        """
        Do `work` with a producer, once more over a fresh connection if the first had gone stale while idle.

        Returns: the error of a broker that does not answer, which is then left alone for a few seconds, or a Mistake.
        """
        try:
            with self.producer() as producer:
                self._attempt(work, producer)
        except Mistake as mistake:
            return mistake
        except Exception as stale:  # noqa: BLE001 - every transport has its own; the run is safe in the ledger
            # A broker that hangs gets no second try: a caller waits for this.
            return self._leave_alone(stale) if _hangs(stale) else self._use_fresh(work)
        return None

    def _use_fresh(self, work: Callable[[Producer], None]) -> Exception | None:
        try:
            with self.producer(fresh=True) as producer:
                self._attempt(work, producer)
        except Mistake as mistake:
            return mistake
        except Exception as error:  # noqa: BLE001 - as above
            return self._leave_alone(error)
        return None

    def _attempt(self, work: Callable[[Producer], None], producer: Producer) -> None:
        connection: Any = producer.connection
        try:
            work(producer)
        except Exception as error:
            if not _is_of_one_message(error, connection):
                raise
            if connection.transport.driver_type == "amqp" and isinstance(error, connection.channel_errors):
                _renew_channel(connection)
            raise Mistake(str(error)) from error

    def _leave_alone(self, error: Exception) -> Exception:
        self._quiet.begin()
        return error

    @contextmanager
    def producer(self, *, fresh: bool = False) -> Iterator[Producer]:
        """A producer with our time-outs; `fresh` throws the process's old connections away first."""
        if self._pid != os.getpid():
            # The parent's connections, and a lock that a thread of its may have held at the fork for ever.
            self._lock, self._pool, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if fresh or self._pool is None:
                if self._pool is not None:
                    _close(self._pool)
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
                _close(pool)

    def _new_pool(self) -> Any:
        if (missing := missing_client(self._app)) is not None:
            raise ConfigError(missing)
        seconds = self._config().publish_timeout.total_seconds()
        connection = self._app.connection_for_write(connect_timeout=seconds)
        # Each host once: kombu would wait two seconds and try again before it says that no broker listens.
        once = {"max_retries": max(0, len(connection.alt) - 1), "interval_start": 0, "interval_step": 0}
        timeouts = dict.fromkeys(_TIMEOUTS.get(connection.transport.driver_type, ()), seconds)
        connection.transport_options = {**(connection.transport_options or {}), **once, **timeouts}
        return ProducerPool(connection.Pool(_CONNECTIONS), limit=_CONNECTIONS, Producer=self._app.amqp.Producer)


def missing_client(app: Celery) -> str | None:
    """What to install for the app's broker, in words; `None` where its client can be loaded. Connects to nothing."""
    kind = str(app.conf.broker_write_url or app.conf.broker_url or "amqp").partition(":")[0]
    try:
        _ = app.connection_for_write().transport
    except Exception as error:  # noqa: BLE001 - without its client, each transport fails in its own way
        if kind in _OF_REDIS and importlib.util.find_spec("redis") is None:
            return "the client of the broker, redis, is not installed: pip install 'runclaim[redis]'"
        if isinstance(error, ImportError):
            return f"the client of the broker cannot be loaded ({error}): pip install 'celery[{kind}]'"
        if isinstance(error, KeyError):
            return f"kombu has no transport {kind!r}: correct the beginning of the broker's URL"
    return None


def _close(pool: Any) -> None:
    """Close the producers and the connections that they have lent from a pool of their own."""
    pool.force_close_all()
    pool.connections.force_close_all()


def _renew_channel(connection: Any) -> None:
    """Another channel for a connection whose own the broker has closed; it would give that one to the next caller."""
    with suppress(Exception):
        # It opens one when it is asked for the next time.
        connection.revive(None)


def _is_of_one_message(error: Exception, connection: Any) -> bool:
    """Whether it was raised before kombu came to send (by a router, a Task class, a serializer), or by one queue."""
    modules = {frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in walk_tb(error.__traceback__)}
    if "kombu" not in modules or isinstance(error, SerializationError | SerializerNotInstalled):
        return True
    if connection.transport.driver_type == "redis":
        return any(code in str(error) for code in _OF_ONE_KEY)
    return isinstance(error, connection.channel_errors)


def _hangs(error: BaseException | None) -> bool:
    while error is not None:
        if "Timeout" in type(error).__name__ or isinstance(error, TimeoutError):
            return True
        error = error.__cause__ or error.__context__
    return False
