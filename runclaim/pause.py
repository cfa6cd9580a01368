"""Pauses whose length does not depend on a clock that tests freeze or move."""

from __future__ import annotations

import time


class Pause:
    """
    A pause of `seconds`; over until it is begun.

    Not safe across threads, and need not be: at worst two begin it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._ends = seconds, float("-inf")

    def begin(self) -> None:
        """Begin it now, even if it is not over."""
        self._ends = time.monotonic() + self._seconds

    @property
    def left(self) -> float:
        """How many seconds are left, 0 when it is over."""
        left = self._ends - time.monotonic()
        return left if 0 < left <= self._seconds else 0.0


class Pauses:
    """
    The pauses of a wait that looks again and again: short at first, each half as long again, at most `longest` seconds.

    The wait begins here and lasts `seconds`, or without them as long as its caller likes.
    """

    def __init__(self, seconds: float | None = None, *, first: float = 0.05, longest: float = 0.5) -> None:
        self._seconds, self._first, self._longest = seconds, first, longest
        self._began, self._slept, self._pause = time.monotonic(), 0.0, first

    def next(self) -> float | None:
        """How many seconds to sleep before the next look; `None` once the wait is over."""
        pause = self._pause
        if self._seconds is not None:
            # A test may have frozen the clock, and then only what was slept has passed.
            left = self._seconds - max(time.monotonic() - self._began, self._slept)
            if left <= 0:
                return None
            pause = min(pause, left)
        self._slept += pause
        self._pause = min(self._pause * 1.5, self._longest)
        return pause

    def restart(self) -> None:
        """Be short again: what is waited for has moved."""
        self._pause = self._first
