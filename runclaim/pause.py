"""A pause of so many seconds, which a clock that somebody freezes or moves, as tests do, makes no longer."""

from __future__ import annotations

import time


class Pause:
    """Over until it is begun. Not safe across threads, and need not be: at worst two begin it."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._ends = seconds, float("-inf")

    def begin(self) -> None:
        """Begin it here and now, also when it goes on."""
        self._ends = time.monotonic() + self._seconds

    @property
    def left(self) -> float:
        """How many seconds are left, 0 when it is over."""
        left = self._ends - time.monotonic()
        return left if 0 < left <= self._seconds else 0.0
