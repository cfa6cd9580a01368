"""Time in the ledger's tests: the one clock that every statement reads, stopped and moved by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.database import Database

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = 2440587.5
_START = datetime(2031, 5, 1, 12, tzinfo=UTC)
# Not the time itself in the function: a transaction that is open does not hear that a function was replaced.
_ON_POSTGRESQL = (
    "CREATE TABLE test_clock AS SELECT CAST(NULL AS timestamptz) AS moment",
    """CREATE OR REPLACE FUNCTION runclaim_now() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT coalesce((SELECT moment FROM test_clock), clock_timestamp())'""",
)


def install(conn: Connection) -> None:
    """Let the clock of this database be stopped. On SQLite that is done connection by connection."""
    for statement in _ON_POSTGRESQL if conn.dialect.name == "postgresql" else ():
        conn.execute(text(statement))


class Clock:
    """The database's clock, standing still at `now` until `advance` moves it; `release` lets it run again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._on_sqlite = database.url.get_backend_name() == "sqlite"
        self.now = _START
        if self._on_sqlite:
            # Only on new connections: an old one goes on with statements it has prepared on the real clock.
            event.listen(database.engine, "connect", self._override)
            database.engine.dispose()
        self._tell()

    def advance(self, by: timedelta) -> None:
        """Let `by` pass, or a hair more; a negative time sets the clock back."""
        self.now += by
        self._tell()

    def release(self) -> None:
        """Give the database its own clock back."""
        if self._on_sqlite:
            event.remove(self._database.engine, "connect", self._override)
            self._database.engine.dispose()
        else:
            self._put(None)

    def _tell(self) -> None:
        if not self._on_sqlite:
            self._put(self.now)
            return
        # SQLite counts days in a double: the next moment that one can say, as the ledger then reads it.
        self._day = (self.now - _EPOCH) / timedelta(days=1) + _EPOCH_DAY
        while (read := _EPOCH + timedelta(microseconds=int((self._day - _EPOCH_DAY) * 86400e6))) < self.now:
            self._day = math.nextafter(self._day, math.inf)
        self.now = read

    def _put(self, moment: datetime | None) -> None:
        with self._database.begin() as conn:
            conn.execute(text("UPDATE test_clock SET moment = :moment"), {"moment": moment})

    def _override(self, raw: Any, _record: Any) -> None:
        raw.create_function("julianday", 1, lambda _now: self._day)
