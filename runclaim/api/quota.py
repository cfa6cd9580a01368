"""
Rate limits: so many requests of a kind in a window, a token (or, before there is one, an address) at a time.

The counts are in memory, or in Redis where several processes serve. A Redis that does not answer stops nobody: each
process then counts for itself. Headers as in the draft draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from limits import parse
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from runclaim import logs
from runclaim.api.problems import Problem
from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from limits import RateLimitItem

    from runclaim.config import Config

logger: Final = logs.logger("runclaim.api")

#: Wrong tokens that one address may send.
_GUESSES: Final = "60/minute"
_QUIET_SECONDS: Final = 10.0


class Quota:
    """The limits of one process."""

    def __init__(self, config: Config) -> None:
        try:
            self._limit, self._guesses = parse(config.api_rate), parse(_GUESSES)
            redis = {"socket_timeout": 0.5, "socket_connect_timeout": 0.5}
            options: Any = {} if config.api_rate_storage.startswith("memory") else redis
            self._shared = SlidingWindowCounterRateLimiter(storage_from_string(config.api_rate_storage, **options))
        except Exception as error:
            raise ConfigError(f"api_rate or api_rate_storage cannot be used ({type(error).__name__})") from error
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._quiet_until = 0.0

    def take(self, kind: str, who: str) -> dict[str, str]:
        """Count one request of a kind; returns the headers that tell what is left. Raises: Problem when none is."""
        allowed, left, resets = self._hit(self._limit, kind, who)
        headers = {
            "RateLimit-Policy": f'"{kind}";q={self._limit.amount};w={self._limit.get_expiry()}',
            "RateLimit": f'"{kind}";r={left};t={resets}',
        }
        if not allowed:
            wait = {"Retry-After": str(max(1, resets))}
            raise Problem(
                "quota-exceeded",
                f"at most {self._limit.amount} of these in {self._limit.get_expiry()} s",
                more={"violated-policies": [kind]},
                headers=headers | wait,
            )
        return headers

    def guess(self, address: str) -> None:
        """Count a wrong token of an address. Raises: Problem when it sends too many."""
        allowed, _, resets = self._hit(self._guesses, "guess", address)
        if not allowed:
            headers = {"Retry-After": str(max(1, resets))}
            raise Problem(
                "quota-exceeded", "too many wrong tokens", more={"violated-policies": ["guess"]}, headers=headers
            )

    def _hit(self, item: RateLimitItem, kind: str, who: str) -> tuple[bool, int, int]:
        if time.monotonic() >= self._quiet_until:
            try:
                return self._count(self._shared, item, kind, who)
            except Exception as error:  # noqa: BLE001 - each store has its own; none may stop the API
                self._quiet_until = time.monotonic() + _QUIET_SECONDS
                logger.warning("rate limits: the store does not answer (%s); counting here", type(error).__name__)
        return self._count(self._own, item, kind, who)

    @staticmethod
    def _count(
        limiter: SlidingWindowCounterRateLimiter, item: RateLimitItem, kind: str, who: str
    ) -> tuple[bool, int, int]:
        allowed = limiter.hit(item, kind, who)
        stats = limiter.get_window_stats(item, kind, who)
        return allowed, max(0, stats.remaining), max(0, math.ceil(stats.reset_time - time.time()))
