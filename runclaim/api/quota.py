"""
Rate limits, and shares of what lasts.

The requests of a kind are limited per window and token or, before there is a token, per origin. The counts are in
memory, or in Redis where several processes serve. If Redis does not answer, no request is refused for that: each
process then counts for itself. Headers as in the draft draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from limits import parse
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from runclaim import logs
from runclaim.api.problems import Problem
from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from limits import RateLimitItem

    from runclaim.config import Config

logger: Final = logs.logger("runclaim.api")

#: Wrong tokens that one address may send.
_GUESSES: Final = "60/minute"
_QUIET_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a kind may be open at once: per token, per project, and in all."""

    token: int
    project: int
    every: int


SHARES: Final = {"streams": Share(20, 100, 200), "waits": Share(50, 150, 500)}


class Shares:
    """What is open now. For the event loop's thread only."""

    def __init__(self) -> None:
        self._many: Counter[tuple[str, ...]] = Counter()

    def require_room(self, kind: str, token: str, project: str) -> None:
        """Raises: Problem when the token, its project or the server has as many as it may."""
        share = SHARES[kind]
        if self._many[kind,] >= share.every:
            raise Problem("busy", f"this server already has {share.every} {kind}; try again later")
        for whose, most in ((("token", token), share.token), (("project", project), share.project)):
            if self._many[kind, *whose] >= most:
                raise Problem(
                    "quota-exceeded",
                    f"this {whose[0]} already has {most} {kind}; end one, or try again later",
                    more={"violated-policies": [kind]},
                    headers={"Retry-After": "5"},
                )

    @contextmanager
    def held(self, kind: str, token: str, project: str) -> Iterator[None]:
        """Count one for as long as the block lasts."""
        places: list[tuple[str, ...]] = [(kind,), (kind, "token", token), (kind, "project", project)]
        self._many.update(places)
        try:
            yield
        finally:
            self._many.subtract(places)
            for each in places:
                if not self._many[each]:
                    del self._many[each]

    def many(self, kind: str) -> int:
        """How many of a kind are open now."""
        return self._many[kind,]


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
                f"at most {self._limit.amount} of these requests are allowed per {self._limit.get_expiry()} s",
                more={"violated-policies": [kind]},
                headers=headers | wait,
            )
        return headers

    def guess(self, whose: str) -> None:
        """Count a wrong token of an origin. Raises: Problem when it sends too many."""
        # Here, and not in the store: who has no token costs no request to another server.
        if not self._count(self._own, self._guesses, "guess", whose)[0]:
            raise self.too_many_guesses(whose)

    def has_guessed_enough(self, whose: str) -> bool:
        """Whether an origin has sent as many wrong tokens as it may. Counts nothing."""
        return not self._own.test(self._guesses, "guess", whose)

    def too_many_guesses(self, whose: str) -> Problem:
        """The problem of an origin that has."""
        stats = self._own.get_window_stats(self._guesses, "guess", whose)
        wait = {"Retry-After": str(max(1, math.ceil(stats.reset_time - time.time())))}
        return Problem(
            "quota-exceeded",
            "too many requests with an invalid token; try again later",
            more={"violated-policies": ["guess"]},
            headers=wait,
        )

    def _hit(self, item: RateLimitItem, kind: str, who: str) -> tuple[bool, int, int]:
        if time.monotonic() >= self._quiet_until:
            try:
                return self._count(self._shared, item, kind, who)
            except Exception as error:  # noqa: BLE001 - each store has its own; none may stop the API
                self._quiet_until = time.monotonic() + _QUIET_SECONDS
                logger.warning(
                    "rate limits: the store does not answer (%s); this process counts on its own",
                    type(error).__name__,
                )
        return self._count(self._own, item, kind, who)

    @staticmethod
    def _count(
        limiter: SlidingWindowCounterRateLimiter, item: RateLimitItem, kind: str, who: str
    ) -> tuple[bool, int, int]:
        allowed = limiter.hit(item, kind, who)
        stats = limiter.get_window_stats(item, kind, who)
        return allowed, max(0, stats.remaining), max(0, math.ceil(stats.reset_time - time.time()))
