"""
Messages of phases that this worker's release does not have: Celery discards them, and their runs are put back.

So in a rolling deploy a message that reaches the wrong release costs its run a moment, and no doubled spacing.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from celery import signals

from runclaim import logs
from runclaim.flows.declare import gone_phase
from runclaim.flows.declare.registry import is_gone
from runclaim.flows.messages.message import Message
from runclaim.ledger.doors.run_pages import run_line
from runclaim.ledger.put_back import put_back

if TYPE_CHECKING:
    from celery import Celery
    from sqlalchemy import Connection

    from runclaim.ledger.read import RunLine
    from runclaim.tasks.runtime import Runtime

logger: Final = logs.logger("runclaim.worker")

#: How many may wait to be put back; what is dropped beyond that is dispatched a little later.
_MOST: Final = 10_000
#: Soon enough for a rolling deploy, and no storm of messages where no worker has the phase.
_LONGEST: Final = timedelta(seconds=5)


def attach(app: Celery, runtime: Runtime) -> None:
    """Attach to every worker of the app."""
    waiting = UnknownTasks(runtime)

    def unknown(sender: Any = None, message: Any = None, name: str = "", **_kwargs: Any) -> None:
        if getattr(sender, "app", None) is app and (found := message_of(message)) is not None:
            waiting.add(name, found)

    signals.task_unknown.connect(unknown, weak=False)


def message_of(raw: Any) -> Message | None:
    """What a message of a phase says; `None` for any other message."""
    try:
        (named, *fence), others, _ = raw.payload
        return Message.of(named, fence[0] if fence else 0, others.get("carried"))
    except Exception:  # noqa: BLE001 - it may be anybody's, and of any shape
        return None


class UnknownTasks:
    """Puts runs back in a thread of its own, so that the worker's loop is not blocked."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, Message]] = deque(maxlen=_MOST)
        self._is_busy = False
        #: The phases of which the log has what to do.
        self._explained: set[str] = set()

    def add(self, task: str, message: Message) -> None:
        """Put back the runs that a message of `task` named."""
        with self._lock:
            self._waiting.append((task, message))
            if self._is_busy:
                return
            self._is_busy = True
        threading.Thread(target=self._work, name="runclaim-put-back", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                taken = list(self._waiting)
                self._waiting.clear()
                self._is_busy = bool(taken)
            if not taken:
                return
            named: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
            for task, message in taken:
                named[task] += message.named
            for task, pairs in named.items():
                try:
                    self._put_back(task, pairs)
                except Exception as error:  # noqa: BLE001 - they are dispatched later, as after any lost message
                    logger.warning("could not put back %d runs of %s: %s", len(pairs), task, error)

    def _put_back(self, task: str, named: list[tuple[str, int]]) -> None:
        ledger = self._runtime.ledger
        delay = min(ledger.config.dispatch_after, _LONGEST)
        if found := ledger.database.run(lambda conn: put_back(conn, named, task=task, delay=delay)):
            logger.warning(
                "this release does not have %s; %d runs were put back for a release that does", task, len(found)
            )
            self._explain(task, next(iter(found)))

    def _explain(self, task: str, run_id: str) -> None:
        """Say once what to do about a phase that no release has any longer; of another's new phase there is nothing."""
        if task in self._explained:
            return
        run = self._runtime.ledger.ask(lambda conn: _if_gone(conn, task, run_id))
        if run is None:
            return
        self._explained.add(task)
        own = self._runtime.ledger.flows.get(run.flow)
        new = [name for name in (own.phases if own else ()) if name not in run.phases]
        logger.warning("%s", gone_phase.warning(run.flow, run.phase, new))


def _if_gone(conn: Connection, task: str, run_id: str) -> RunLine | None:
    """The run, if it is still at the phase of the task, and no release that is alive declares that."""
    run = run_line(conn, run_id)
    if run is None or f"{run.flow}.{run.phase}" != task:
        return None
    return run if is_gone(conn, run.flow, run.phase, run.project) else None
