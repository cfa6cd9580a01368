"""
The minder of groups: one thread per process looks after the deliveries whose body takes longer than was expected.

While a body runs, its thread can settle nothing. The minder then settles what has ended before it, and gives back
what waits behind it: a long phase delays no other run.
"""

from __future__ import annotations

import threading
import time
from typing import Final, Protocol

from runclaim import forks, logs

logger: Final = logs.logger("runclaim.runner")

#: How often it looks while there is a group.
_EVERY: Final = 0.010


class Minded(Protocol):
    """A group under way."""

    def mind(self, moment: float) -> None:
        """Settle and give back what must not wait any longer; `moment` is on the monotonic clock."""
        ...


class Minder:
    """Looks after the groups that it is told of. Its thread starts with the first, even in a forked child."""

    def __init__(self) -> None:
        self._reset()
        forks.in_child(self, Minder._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._groups: set[Minded] = set()
        self._thread: threading.Thread | None = None

    def watch(self, group: Minded) -> None:
        """Look after `group` until it is forgotten."""
        with self._changed:
            self._groups.add(group)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="runclaim-minder", daemon=True)
                self._thread.start()
            self._changed.notify()

    def forget(self, group: Minded) -> None:
        """It has ended."""
        with self._changed:
            self._groups.discard(group)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._groups:
                    self._changed.wait()
                groups = list(self._groups)
            for group in groups:
                try:
                    group.mind(time.monotonic())
                except Exception:
                    # Its own thread settles what is left, or the claims lapse.
                    logger.warning("a group could not be settled while a long body runs", exc_info=True)
            time.sleep(_EVERY)
