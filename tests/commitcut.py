"""
A ledger whose COMMITs can be cut, on both databases: done or not, and the client hears of neither.

On PostgreSQL the connection really breaks, in a proxy (`tests.pgcut`). On SQLite, where no connection can, the COMMIT
is done or left out, and the driver's error is that of a file that went away.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from tests.pgcut import CuttingProxy, When

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from runclaim.database import Database


class CommitCut:
    """The connections of one database; `order` cuts its next COMMIT."""

    def __init__(self, proxy: CuttingProxy | None, url: str) -> None:
        self._proxy, self.url = proxy, url if proxy is None else proxy.url
        self._when: When | None = None
        self._meanwhile: Callable[[], object] | None = None
        self._has_landed: Callable[[], bool] = lambda: True
        self._is_lost = False

    def watch(self, database: Database) -> None:
        """Whatever is ordered is for the connections of this one."""
        event.listen(database.engine, "engine_connect", self._connects)
        event.listen(database.engine, "commit", self._commits)

    def order(self, when: When, meanwhile: Callable[[], object] | None = None) -> None:
        """Cut the next COMMIT; `meanwhile` is done after it, before anything else is asked of the ledger."""
        self._meanwhile = meanwhile
        if self._proxy is None:
            self._when, self._is_lost = when, False
            self._has_landed = lambda: self._is_lost
        else:
            self._has_landed = self._proxy.order(when).landed.is_set

    def check(self) -> None:
        """Fails unless the cut that was ordered has landed, and what was to happen after it has."""
        assert (True, None) == (self._has_landed(), self._meanwhile)

    def _connects(self, _conn: Connection) -> None:
        if self._has_landed() and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()

    def _commits(self, conn: Connection) -> None:
        when, self._when = self._when, None
        if when is None:
            return
        if when is When.AFTER:
            conn.connection.driver_connection.execute("COMMIT")  # type: ignore[union-attr]
        self._is_lost = True
        raise gone("COMMIT")


def gone(statement: str) -> OperationalError:
    """SQLite's error for a disk that does not answer, with its result code."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return OperationalError(statement, None, error, connection_invalidated=True)


@contextmanager
def commit_cut(url: str) -> Iterator[CommitCut]:
    """For the ledger of `url`; the cut one's own URL may be another."""
    if url.startswith("sqlite"):
        yield CommitCut(None, url)
        return
    with CuttingProxy(url) as proxy:
        yield CommitCut(proxy, url)
