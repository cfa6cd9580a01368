"""
Messages of pool children that were read in part when the connection to the broker was lost.

Celery then resets its event loop and forgets how far it had read. It would take the rest for a new message and never
hear from that child again: the worker would stay up and take no more messages. So a message that was read in part is
read to its end before the reset.
"""

from __future__ import annotations

import os
import select
import signal
import time
from inspect import isgenerator
from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps

from runclaim import logs

if TYPE_CHECKING:
    from collections.abc import Generator

    from celery import Celery

logger: Final = logs.logger("runclaim.worker")

#: A child that is alive continues to write at once; one that is stopped may not hold up the worker for longer.
_PATIENCE_SECONDS: Final = 5.0


def attach(app: Celery) -> None:
    """Attach to every worker of the app."""
    app.steps["worker"].add(RunclaimResults)


class RunclaimResults(bootsteps.StartStopStep):
    """Puts the reading before the reset. Celery has no door for it, so the loop's own `reset` is wrapped."""

    requires = ("celery.worker.components:Hub", "celery.worker.components:Pool")

    def start(self, parent: Any) -> None:
        """Once the loop and the pool are there; a pool without a loop has no such messages."""
        hub: Any = parent.hub
        if hub is not None:
            guard(hub, parent.pool)


def guard(hub: Any, pool: Any, *, patience: float = _PATIENCE_SECONDS) -> None:
    """Have the loop read to their ends the messages that it has begun, before each of its resets."""
    reset = hub.reset

    def finish_and_reset() -> None:
        for fd, reading in _begun(hub):
            if not _finish(fd, reading, patience):
                _end_child(pool, fd)
        reset()

    hub.reset = finish_and_reset


def _begun(hub: Any) -> list[tuple[int, Generator[Any, Any, Any]]]:
    # Only the pool reads with generators: one for each message that it has not read whole.
    return [(fd, reader[0]) for fd, reader in hub.readers.items() if reader is not None and isgenerator(reader[0])]


def _finish(fd: int, reading: Generator[Any, Any, Any], patience: float) -> bool:
    """Whether the message was read to its end."""
    ends = time.monotonic() + patience
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while (left := ends - time.monotonic()) > 0:
        try:
            if poller.poll(left * 1000):
                next(reading)
        except StopIteration:
            return True
        except Exception:
            # Its end was read, and what Celery does with it failed; or the child is gone, which the pool notices.
            logger.warning("a result of a pool process was lost with the connection to the broker", exc_info=True)
            return True
    return False


def _end_child(pool: Any, fd: int) -> None:
    """End the child that writes there: it will not be understood again, and the pool starts another."""
    for process in getattr(getattr(pool, "_pool", None), "_pool", ()):
        if getattr(process, "outqR_fd", None) == fd:
            logger.warning("pool process %d stopped in the middle of a message and is replaced", process.pid)
            os.kill(process.pid, signal.SIGKILL)
