"""Waiting for a run without holding a thread or a transaction: short questions, with pauses between them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from anyio.to_thread import run_sync

from runclaim.pause import Pauses

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

    from runclaim.api.auth import Caller

T = TypeVar("T")

MOST_SECONDS: Final = 30
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)


def wait_of(request: Request) -> int | None:
    """The seconds of `Prefer: wait=…` (RFC 7240), at most 30; `None` when the request does not ask to wait."""
    found = _WAIT.search(",".join(request.headers.getlist("prefer")))
    return None if found is None else min(int(found[1]), MOST_SECONDS)


async def until(
    question: Callable[[], T],
    *,
    enough: Callable[[T], bool],
    seconds: float,
    request: Request,
    caller: Caller,
    project: Callable[[T], str],
) -> T:
    """
    The answer that is enough, or the last one when the time is over or the client has gone.

    Raises: Problem when the caller, or the project of the first answer, has as many waits as it may.
    """
    pauses = Pauses(seconds)
    found = await run_sync(question)
    if enough(found) or seconds <= 0:
        return found
    shares, whose = caller.server.shares, ("waits", caller.token.id, project(found))
    shares.require_room(*whose)
    with shares.held(*whose):
        while (pause := pauses.next()) is not None and not await request.is_disconnected():
            await anyio.sleep(pause)
            found = await run_sync(question)
            if enough(found):
                break
    return found
