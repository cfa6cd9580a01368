"""
Real concurrency: threads with connections of their own, started together or led step by step.

An `Actor` runs what it is told in its own transaction. On PostgreSQL `pg_blocking_pids` tells that it waits for another
one, so an interleaving is forced and never hoped for.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeVar

from sqlalchemy import event, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from sqlalchemy import Connection
    from sqlalchemy.engine import ExceptionContext

    from runclaim.database import Database

T = TypeVar("T")

#: Nothing here takes longer, unless something hangs.
PATIENCE = 20.0
DEADLOCK = "40P01"


def together(count: int, work: Callable[[int], T]) -> list[T]:
    """What `work(0)` … `work(count - 1)` give when they start at the same moment; the first exception is raised."""
    start = threading.Barrier(count)

    def begin(number: int) -> T:
        start.wait(PATIENCE)
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))


@contextmanager
def refusals(database: Database) -> Iterator[list[str]]:
    """The SQLSTATEs of all errors meanwhile, also of those that `Database.run` repeats and nobody sees."""
    found: list[str] = []

    def note(context: ExceptionContext) -> None:
        found.append(getattr(context.original_exception, "sqlstate", None) or "")

    event.listen(database.engine, "handle_error", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "handle_error", note)


def until(holds: Callable[[], bool], *, what: str) -> None:
    """Poll until `holds()`; fails after `PATIENCE`."""
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.002)


class Actor:
    """One connection with one open transaction, in a thread of its own, so that it can be left waiting for a lock."""

    def __init__(self, database: Database, *, isolation: str | None = None) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._conn = database.engine.connect()
        if isolation is not None:
            self._conn = self._conn.execution_options(isolation_level=isolation)
        self.pid: int = self.do(lambda conn: conn.execute(text("SELECT pg_backend_pid()")).scalar_one())

    def start(self, step: Callable[[Connection], T]) -> Future[T]:
        """Begin `step(conn)` and do not wait for it."""
        return self._thread.submit(step, self._conn)

    def do(self, step: Callable[[Connection], T]) -> T:
        """Run `step(conn)` to its end."""
        return self.start(step).result(PATIENCE)

    def commit(self) -> None:
        self.do(lambda conn: conn.commit())

    def roll_back(self) -> None:
        self.do(lambda conn: conn.rollback())

    def is_blocked(self, watcher: Connection) -> bool:
        """Whether it waits for a lock that another transaction holds."""
        return bool(watcher.execute(text("SELECT cardinality(pg_blocking_pids(:pid)) > 0"), {"pid": self.pid}).scalar())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.do(lambda conn: conn.close())
        self._thread.shutdown()


def blocked(database: Database, waiting: Actor, step: Callable[[Connection], T]) -> Future[T]:
    """Begin `step` on the actor and return once it waits for a lock. Fails if it does not have to wait."""
    future = waiting.start(step)
    with database.engine.connect() as found:
        watcher = found.execution_options(isolation_level="AUTOCOMMIT")

        def is_waiting() -> bool:
            assert not future.done(), f"it did not have to wait: {future.exception() or future.result()}"
            return waiting.is_blocked(watcher)

        until(is_waiting, what="the step to be blocked")
    return future
