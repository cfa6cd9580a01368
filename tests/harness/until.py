"""Waiting in tests: for something to be true, never for time to pass."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def until(seen: Callable[[], T], what: str, *, within: float = 30.0, so_far: Callable[[], object] | None = None) -> T:
    """
    The first answer of `seen` that is true, asked again and again.

    Raises: AssertionError that says `what` did not come in `within` seconds, and what `so_far` tells.
    """
    ends = time.monotonic() + within
    while True:
        if answer := seen():
            return answer
        if time.monotonic() > ends:
            told = "" if so_far is None else f"\n{so_far()}"
            raise AssertionError(f"{what}: not within {within:g} s; last seen: {answer!r}{told}")
        time.sleep(0.02)
