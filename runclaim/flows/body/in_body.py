"""What holds while the body of a phase runs: it waits for no other run, and only its own process comes back from it."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from runclaim import logs
from runclaim.errors import WaitInBody

if TYPE_CHECKING:
    from collections.abc import Iterator

logger: Final = logs.logger("runclaim.runner")

_BODY: Final[ContextVar[str | None]] = ContextVar("runclaim_body", default=None)


@contextmanager
def in_body(phase: str) -> Iterator[None]:
    """Around a body. A process that the body has forked ends here: the claim is its parent's to settle."""
    pid, token = os.getpid(), _BODY.set(phase)
    try:
        yield
    finally:
        _BODY.reset(token)
        if os.getpid() != pid:
            _end(phase)


def refuse_in_body(run_id: str) -> None:
    """Raises: WaitInBody in the body of a phase."""
    if (body := _BODY.get()) is not None:
        raise WaitInBody(run_id, body)


def _end(phase: str) -> None:
    error = sys.exception()
    is_exit = error is None or isinstance(error, SystemExit)
    status = error.code if isinstance(error, SystemExit) else error and 1
    logger.log(
        logging.WARNING if is_exit else logging.ERROR,
        "a process that the body of %s has forked came back from it and is ended: end it with os._exit in the body",
        phase,
        exc_info=None if is_exit else error,
    )
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))
