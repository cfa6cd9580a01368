"""
The doorbell of a process that enqueues: at once if it has not rung just now, otherwise a moment later for all.

As Nagle's algorithm does for packets (RFC 896): no run waits at a low rate, and at a high rate each message names many.
What a crash leaves unrung is dispatched from the ledger; a process that ends rings first.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Final

from runclaim import forks
from runclaim.pause import Pause

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from runclaim.ledger.dispatch import Due

#: How long a message waits for others after the last one.
_PAUSE: Final = 0.010
#: How long the end of a process waits for a message that is being sent.
_LAST_WORD: Final = 5.0
#: A thread without work ends after this.
_IDLE: Final = 1.0


class Doorbell:
    """Safe across threads and forks. `publish` never raises."""

    def __init__(self, publish: Callable[[Sequence[Due]], object]) -> None:
        self._publish = publish
        self._reset()
        _DOORBELLS.add(self)
        # What waits is the parent's to ring.
        forks.in_child(self, Doorbell._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._waiting: list[Due] = []
        self._is_ringing = False
        self._pause = Pause(_PAUSE)
        self._thread: threading.Thread | None = None
        self._pid = 0

    def ring(self, due: Collection[Due]) -> None:
        """Have the runs published: by this call if none has rung just now, else very soon by a thread."""
        if not due:
            return
        with self._changed:
            if self._is_ringing or self._pause.left > 0:
                if not self._waiting:
                    # Once per message: a thread that is woken for each run costs the caller more than the run.
                    self._start()
                self._waiting.extend(due)
                return
            self._is_ringing = True
            # What waits came first.
            taken, self._waiting = [*self._waiting, *due], []
        self._ring(taken)

    def _ring(self, due: Sequence[Due]) -> None:
        try:
            self._publish(due)
        finally:
            with self._changed:
                self._is_ringing = False
                self._pause.begin()
                self._changed.notify_all()

    def _start(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            # A child of multiprocessing ends without the functions of atexit.
            Finalize(self, Doorbell.flush, args=(self,), exitpriority=100)
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="runclaim-doorbell", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _loop(self) -> None:
        while (due := self._take()) is not None:
            self._ring(due)

    def _take(self) -> list[Due] | None:
        """What waits, once it may be rung; `None` when nothing has come for a while."""
        ends = time.monotonic() + _IDLE
        with self._changed:
            while True:
                moment = time.monotonic()
                if not self._waiting and moment >= ends:
                    self._thread = None
                    return None
                pause = self._pause.left
                if self._waiting and not self._is_ringing and not pause:
                    self._is_ringing = True
                    due, self._waiting = self._waiting, []
                    return due
                left = pause if self._waiting and not self._is_ringing else ends - moment
                self._changed.wait(max(0.0005, min(left, _IDLE)))

    def flush(self) -> None:
        """Ring for everything that waits, now, and wait for who rings already. For the end of a process."""
        with self._changed:
            due, self._waiting = self._waiting, []
            self._changed.wait_for(lambda: not self._is_ringing, timeout=_LAST_WORD)
        if due:
            self._ring(due)


_DOORBELLS: Final[weakref.WeakSet[Doorbell]] = weakref.WeakSet()


def _flush() -> None:
    for doorbell in list(_DOORBELLS):
        doorbell.flush()


atexit.register(_flush)
