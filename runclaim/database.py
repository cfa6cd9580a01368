"""
The connection to the ledger: engines that survive forks, and one kind of transaction.

A transaction that ends in an error the database asks to repeat (40001, 40P01, a busy SQLite file) is
repeated. One whose connection dies is in doubt: it may have committed. `Database.run` then asks the
`read_back` of the verb before it repeats anything, and never assumes either answer.
"""

from __future__ import annotations

import os
import weakref
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, event

from runclaim import forks
from runclaim.errors import LedgerClosed, LedgerUnavailable
from runclaim.sql.engines import FILE, new_engine
from runclaim.sql.ledger_file import opened
from runclaim.sql.patience import Patience
from runclaim.urls import masked, parsed, schema_of, sqlite_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from runclaim.sql.ledger_file import Opened

T = TypeVar("T")


class Database:
    """A ledger's database. Cheap to make: nothing connects before the first transaction of a process."""

    def __init__(self, url: str, *, pool_size: int = 5, patience: timedelta) -> None:
        self.url: URL = parsed(url)
        self.patience = patience.total_seconds()
        self._pool_size = pool_size
        self._engine: Engine | None = None
        #: The same connections, for statements that are transactions by themselves.
        self._at_once: Engine | None = None
        self._making = forks.Lock()
        self._pid = 0
        self._is_shut = False
        #: The processes that have had a connection: this one, or those that it was forked from.
        self._opened_by: set[int] = set()
        #: The schema of PostgreSQL that was chosen for the tables.
        self.schema = schema_of(self.url)
        #: The file of a ledger on SQLite.
        self.file = sqlite_file(url)
        self._name = masked(self.url.render_as_string(hide_password=True))
        _DATABASES.add(self)
        forks.in_child(self, Database._leave)

    def __str__(self) -> str:
        return self._name

    @property
    def engine(self) -> Engine:
        """The engine of this process. A connection made before a fork is never used after it. Raises: LedgerClosed."""
        if self._is_shut:
            raise LedgerClosed
        if self._engine is None or self._pid != os.getpid():
            with self._making:
                # Of two that were made at once one would be forgotten with its connections.
                if self._engine is None:
                    self._engine = new_engine(self.url, self._pool_size, self.patience)
                    # Not a method of ours: the engine would keep its database alive.
                    opened_by = self._opened_by
                    event.listen(self._engine, "connect", lambda _raw, _record: opened_by.add(os.getpid()))
                    weakref.finalize(self, _forget, self._engine, os.getpid()).atexit = False
                elif self._pid != os.getpid():
                    self._engine.dispose(close=False)
                self._pid = os.getpid()
        return self._engine

    def standing(self) -> tuple[int, Opened | None]:
        """The process and the file of SQLite as they are now: what a look at the schema is true of."""
        return os.getpid(), None if self.file is None else opened(self.file)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One write transaction (BEGIN IMMEDIATE on SQLite), committed at the end of the block."""
        with self._held_off(), self.engine.begin() as conn:
            file: Opened | None = conn.info.get(FILE)
            yield conn
        if file is not None and not file.is_there:
            raise LedgerUnavailable(
                f"the file {file.path} was deleted or replaced during a write; nothing of that write is kept."
                " Put the file back, or restart this process"
            )

    @contextmanager
    def at_once(self) -> Iterator[Connection]:
        """
        For one statement that is a transaction by itself: on PostgreSQL it needs no BEGIN and no COMMIT to be sent.

        What is committed is committed when the statement returns. On SQLite the same as `begin`.
        """
        if self.url.get_backend_name() == "sqlite":
            with self.begin() as conn:
                yield conn
        else:
            engine = self.engine
            if self._at_once is None:
                self._at_once = engine.execution_options(runclaim_at_once=True)
            with self._at_once.begin() as conn:
                yield conn

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """For what only reads: on SQLite one transaction, which waits for no writer; on PostgreSQL each statement."""
        with self._held_off(), self.engine.connect() as conn:
            yield conn.execution_options(runclaim_reads=True)

    def _held_off(self) -> AbstractContextManager[None]:
        return forks.held_off() if self.url.get_backend_name() == "sqlite" else nullcontext()

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        read_back: Callable[[Connection], T | None] | None = None,
        patience: float | None = None,
        at_once: bool = False,
        outwaits: Callable[[BaseException], bool] | None = None,
        silence: float = 0.0,
    ) -> T:
        """
        Run `work` in one transaction and return its answer once it is committed.

        `at_once` says that on PostgreSQL `work` is one statement, and saves the round trips around it.

        `work` may run several times, never after it committed unless it recognises itself (same nonce, same key). When
        a connection dies, `read_back` is asked first; its answer, unless `None`, is the truth. `patience` is in
        seconds, even for a server that acknowledges and never answers; `silence`, where it is longer, is how long that
        may take. `outwaits` says which errors are waited out although they would be raised at once: their cause may be
        fixed meanwhile. Raises: LedgerUnavailable when the database stays away, LedgerRefused when it turns us away, or
        what `work` raises.
        """

        def once(doubt: bool) -> T:  # noqa: FBT001
            if doubt and read_back and (found := self._ask(read_back)) is not None:
                return found
            return self._once(work, read_back if doubt else None, self.at_once if at_once else self.begin)

        return self._patience(patience, outwaits, silence).keep_trying(once)

    def ask(self, question: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """The answer to a question that only reads; as patient as `run`. Raises: LedgerUnavailable, LedgerRefused."""
        return self._patience(patience).keep_trying(lambda _doubt: self._ask(question))

    def _patience(
        self,
        seconds: float | None,
        outwaits: Callable[[BaseException], bool] | None = None,
        silence: float = 0.0,
    ) -> Patience:
        patience = self.patience if seconds is None else seconds
        return Patience(patience, str(self), lambda: bool(self._opened_by), outwaits, silence)

    def _once(
        self,
        work: Callable[[Connection], T],
        read_back: Callable[[Connection], T | None] | None,
        transaction: Callable[[], AbstractContextManager[Connection]],
    ) -> T:
        """
        One try; with `read_back`, whatever speaks against it is checked once more.

        The lost connection may have committed late: then the claim is spent, or the application's own unique key
        refuses the second row.
        """
        try:
            with transaction() as conn:
                answer = work(conn)
        except Exception:
            if read_back and (found := self._ask(read_back)) is not None:
                return found
            raise
        if not answer and read_back and (found := self._ask(read_back)) is not None:
            return found
        return answer

    def _ask(self, question: Callable[[Connection], T]) -> T:
        with self.read() as conn:
            return question(conn)

    def close(self) -> None:
        """Close this process's connections. The database can be used again; it then connects again."""
        if self._engine is not None:
            self._engine.dispose()

    def _leave(self) -> None:
        """In a forked child: the sockets belong to the parent, which still uses them."""
        if self._engine is not None:
            self._engine.dispose(close=False)

    def shut(self) -> None:
        """Close for good: whatever comes later raises LedgerClosed."""
        self._is_shut = True
        self.close()


def _forget(engine: Engine, pid: int) -> None:
    """Close what an unreferenced database has left open; a child leaves its parent's alone."""
    if pid == os.getpid():
        engine.dispose()


_DATABASES: Final[weakref.WeakSet[Database]] = weakref.WeakSet()


def _close_idle_sqlite() -> None:
    for database in list(_DATABASES):
        if database.url.get_backend_name() == "sqlite":
            database.close()


forks.close_before(_close_idle_sqlite)
