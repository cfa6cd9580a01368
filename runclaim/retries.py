"""
How long a failed phase waits before its next attempt.

Exponential with full jitter: attempt n waits a random time between 0 and min(ceiling, first * factor**(n-1)),
so that runs that failed together do not come back together
(Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

#: A delay above this is a mistake, and at some length no date that both databases have.
LONGEST: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waits between attempts of a phase; `jitter=False` waits the full time, always."""

    first: timedelta = timedelta(seconds=2)
    factor: float = 2.0
    ceiling: timedelta = timedelta(minutes=10)
    jitter: bool = True

    def delay(self, attempt: int) -> timedelta:
        """The wait after the failed attempt number `attempt` (1 is the first)."""
        try:
            seconds = min(self.ceiling.total_seconds(), self.first.total_seconds() * self.factor ** (attempt - 1))
        except OverflowError:
            seconds = self.ceiling.total_seconds()
        # Spreads load; nothing secret hangs on it.
        return timedelta(seconds=random.uniform(0, seconds) if self.jitter else seconds)  # noqa: S311

    def delay_after(self, attempt: int, *, wanted: timedelta | None) -> timedelta:
        """The wait before the next attempt: `wanted` by whatever ended this one, within bounds, else `delay`."""
        return max(min(self.delay(attempt) if wanted is None else wanted, LONGEST), timedelta(0))
