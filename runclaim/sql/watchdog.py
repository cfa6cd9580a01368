"""
The watchdog: a session whose server does not answer in time is cut, so that no call waits for it any longer.

The kernel's time-outs do not help: a pooler that hangs, a stopped server or a middlebox acknowledges every packet and
never answers. One thread per process looks after all sessions. A transaction costs an entry in a set; the thread wakes
when the earliest limit has passed, and not at all while nothing is under way.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runclaim import forks

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A server may always take this long, whatever the patience: the driver gives a connection no less.
LEAST_SECONDS: Final = 2.0
#: A thread that is this late was stopped itself, or had no processor: the server may have answered meanwhile.
_STOPPED_SECONDS: Final = 0.1


@dataclass(slots=True)
class Limit:
    """How long one try of a verb may take, in seconds, and when that is over."""

    seconds: float
    ends: float
    is_cut: bool = False
    is_extended: bool = False

    @property
    def left(self) -> float:
        """In seconds."""
        return max(0.0, self.ends - time.monotonic())


@dataclass(slots=True, eq=False)
class Watched:
    """A session in use."""

    session: Any
    limit: Limit


_OF_THREAD: Final = threading.local()


@contextmanager
def within(seconds: float) -> Iterator[Limit]:
    """What this thread does with sessions inside the block is over after `seconds`."""
    seconds = max(seconds, LEAST_SECONDS)
    limit = Limit(seconds, time.monotonic() + seconds)
    outer, _OF_THREAD.limit = current(), limit
    try:
        yield limit
    finally:
        _OF_THREAD.limit = outer


def current() -> Limit | None:
    """The limit that holds for this thread now."""
    return getattr(_OF_THREAD, "limit", None)


class Watchdog:
    """Cuts sessions of psycopg. Safe across threads; a forked child begins with none."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all: in a forked child neither the thread nor the sessions are its own."""
        # A lock that its own thread may take again: the garbage collector may give a session back while it is held.
        self._changed = threading.Condition()
        self._watched: set[Watched] = set()
        self._thread: threading.Thread | None = None
        #: When the thread looks again by itself: what ends later need not wake it.
        self._sleeps_until = 0.0

    def watch(self, session: Any, limit: Limit) -> Watched:
        """Cut the session when the limit is over, unless it is forgotten before."""
        entry = Watched(session, limit)
        with self._changed:
            self._watched.add(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="runclaim-watchdog", daemon=True)
                self._thread.start()
            elif limit.ends < self._sleeps_until:
                self._changed.notify()
        return entry

    def forget(self, entry: Watched) -> None:
        """The session has answered, or is gone."""
        with self._changed:
            self._watched.discard(entry)

    def _loop(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                for entry in [each for each in list(self._watched) if each.limit.ends <= now]:
                    self._end(entry, now)
                # For ever while there is none: the next one wakes it.
                self._sleeps_until = min((each.limit.ends for each in list(self._watched)), default=float("inf"))
                self._changed.wait(None if self._sleeps_until == float("inf") else self._sleeps_until - now)

    def _end(self, entry: Watched, now: float) -> None:
        """Cut the session; once, after a time in which this process itself stood still, wait for its answer instead."""
        limit = entry.limit
        if now - limit.ends > _STOPPED_SECONDS and not limit.is_extended:
            limit.ends, limit.is_extended = now + LEAST_SECONDS, True
            return
        self._watched.discard(entry)
        limit.is_cut = True
        _cut(entry.session)


def _cut(session: Any) -> None:
    # A session that was closed has no socket, and the number of its socket may belong to another one by now.
    with suppress(Exception):
        number = session.pgconn.socket
        with socket.socket(fileno=os.dup(number)) as line:
            if session.pgconn.socket == number:
                line.shutdown(socket.SHUT_RDWR)


WATCHDOG: Final = Watchdog()
forks.in_child(WATCHDOG, Watchdog.reset)
