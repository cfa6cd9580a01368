"""
The connection to the ledger: engines that survive forks, one kind of transaction, and what its failures mean.

A transaction that ends in an error the database asks to repeat (40001, 40P01, a busy SQLite file) is
repeated. One whose connection dies is in doubt: it may have committed. `Database.run` then asks the
`read_back` of the verb before it repeats anything, and never assumes either answer.
"""

from __future__ import annotations

import os
import time
import weakref
from contextlib import contextmanager, nullcontext
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from runclaim import forks
from runclaim.engines import new_engine
from runclaim.errors import LedgerClosed, LedgerUnavailable
from runclaim.urls import masked, sqlite_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from datetime import timedelta

T = TypeVar("T")

#: Serialisation failure and deadlock ask for the whole transaction again; a full disk or memory may have room again.
_REPEAT_STATES: Final = frozenset({"40001", "40P01", "55P03", "53100", "53200"})
#: Connection exceptions, shutting down, starting up, too many connections (PostgreSQL, appendix A).
_GONE_STATES: Final = ("08", "57P01", "57P02", "57P03", "53300")
_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_FULL, _SQLITE_CANTOPEN = 5, 6, 13, 14
#: A file that cannot be opened may be on a disk that comes back.
_SQLITE_AGAIN: Final = frozenset({_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_FULL, _SQLITE_CANTOPEN})


class Trouble(Enum):
    """What a database error means for the transaction it ended."""

    REPEAT = auto()  #: nothing was committed; do all of it again
    DOUBT = auto()  #: the connection died: committed or not, only the ledger knows
    FATAL = auto()  #: repeating would not help


def trouble(error: BaseException) -> Trouble:
    """Classify by SQLSTATE or SQLite's result code; never by the message's words."""
    if isinstance(error, PoolTimeout):
        return Trouble.REPEAT
    if not isinstance(error, DBAPIError):
        return Trouble.FATAL
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state in _REPEAT_STATES:
        return Trouble.REPEAT
    if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _SQLITE_AGAIN:
        return Trouble.REPEAT
    gone = state is not None and state.startswith(_GONE_STATES)
    # psycopg reports a lost connection and a refused one as an OperationalError without a state.
    on_sqlite = type(error.orig).__module__.startswith("sqlite3")
    lost = state is None and type(error.orig).__name__ == "OperationalError" and not on_sqlite
    return Trouble.DOUBT if error.connection_invalidated or gone or lost else Trouble.FATAL


class Database:
    """A ledger's database. Cheap to make: nothing connects before the first transaction of a process."""

    def __init__(self, url: str, *, pool_size: int = 5, patience: timedelta) -> None:
        self.url: URL = make_url(url)
        self.patience = patience.total_seconds()
        self._pool_size = pool_size
        self._engine: Engine | None = None
        #: The same connections, for statements that are transactions by themselves.
        self._at_once: Engine | None = None
        self._making = forks.Lock()
        self._pid = 0
        self._is_shut = False
        sqlite_file(url)
        _DATABASES.add(self)

    def __str__(self) -> str:
        return masked(self.url.render_as_string(hide_password=True))

    @property
    def engine(self) -> Engine:
        """The engine of this process. A connection made before a fork is never used after it. Raises: LedgerClosed."""
        if self._is_shut:
            raise LedgerClosed
        if self._engine is None or self._pid != os.getpid():
            with self._making:
                # Of two that were made at once one would be forgotten with its connections.
                if self._engine is None:
                    self._engine = new_engine(self.url, self._pool_size)
                    weakref.finalize(self, _forget, self._engine, os.getpid()).atexit = False
                elif self._pid != os.getpid():
                    self._engine.dispose(close=False)
                self._pid = os.getpid()
        return self._engine

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One write transaction (BEGIN IMMEDIATE on SQLite), committed at the end of the block."""
        with self._held_off(), self.engine.begin() as conn:
            yield conn

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
    ) -> T:
        """
        Run `work` in one transaction and return its answer once it is committed.

        `at_once` says that on PostgreSQL `work` is one statement, and saves the round trips around it.

        `work` may run several times, never after it committed unless it recognises itself (same nonce, same
        key). When a connection dies, `read_back` is asked first; its answer, unless `None`, is the truth.
        `patience` is in seconds. Raises: LedgerUnavailable when the database stays away, or what `work` raises.
        """

        def once(doubt: bool) -> T:  # noqa: FBT001
            if doubt and read_back and (found := self._ask(read_back)) is not None:
                return found
            return self._once(work, read_back if doubt else None, self.at_once if at_once else self.begin)

        return self._patiently(once, patience)

    def ask(self, question: Callable[[Connection], T], *, patience: float | None = None) -> T:
        """The answer to a question that only reads; as patient as `run`. Raises: LedgerUnavailable."""
        return self._patiently(lambda _doubt: self._ask(question), patience)

    def _patiently(self, once: Callable[[bool], T], patience: float | None) -> T:
        ends = time.monotonic() + (self.patience if patience is None else patience)
        doubt, pause = False, 0.02
        while True:
            try:
                return once(doubt)
            except (DBAPIError, PoolTimeout) as error:
                kind = trouble(error)
                if kind is Trouble.FATAL:
                    raise
                if time.monotonic() + pause > ends:
                    said = f"{type(error).__name__}: {str(getattr(error, 'orig', error)).strip().splitlines()[0]}"
                    raise LedgerUnavailable(f"the ledger {self} does not answer ({said}); try again") from error
                doubt = doubt or kind is Trouble.DOUBT
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

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
        """Close this process's connections. The database can be used again; it connects anew."""
        if self._engine is not None:
            self._engine.dispose()

    def shut(self) -> None:
        """Close for good: whatever comes later raises LedgerClosed."""
        self._is_shut = True
        self.close()


def _forget(engine: Engine, pid: int) -> None:
    """Close what a database has left open that nobody refers to any more; a child leaves its parent's alone."""
    if pid == os.getpid():
        engine.dispose()


_DATABASES: Final[weakref.WeakSet[Database]] = weakref.WeakSet()


def _after_fork() -> None:
    for database in list(_DATABASES):
        if database._engine is not None:  # noqa: SLF001 - the class's own hook
            # close=False: the sockets belong to the parent, which goes on using them.
            database._engine.dispose(close=False)  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork)


def _close_idle_sqlite() -> None:
    for database in list(_DATABASES):
        if database.url.get_backend_name() == "sqlite":
            database.close()


forks.close_before(_close_idle_sqlite)
