"""
Sessions of the application that lead to the ledger's own database; any other is refused before it is written to.

Another database may have tables of the same names, a copy even the same rows: told apart is what the database is, the
server's process and the table itself, or the file. That is asked once for each engine, and nothing after.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import text

from runclaim import migrations
from runclaim.errors import InputError
from runclaim.sql import schemas
from runclaim.urls import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection, Pool

    from runclaim.database import Database

#: What no copy shares: when the server was started, the database's number there, and the table's.
_PLACE: Final = text(
    "SELECT CONCAT_WS('/', CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS BIGINT), CAST(oid AS TEXT),"
    " COALESCE(CAST(CAST(to_regclass(:runs) AS OID) AS TEXT), 'none')),"
    " current_setting('client_encoding') FROM pg_database WHERE datname = current_database()"
)
#: Search paths that are remembered of one engine, at most.
_MOST_PATHS: Final = 100


class OwnSessions:
    """The engines of the application that were found to lead to the ledger."""

    def __init__(self, database: Callable[[], Database], require_schema: Callable[[], None]) -> None:
        #: The ledger's, whatever tables it has.
        self._database = database
        self._require_schema = require_schema
        #: Pool → search path → the ledger's place. An engine with options of its own shares the pool of its parent.
        self._known: WeakKeyDictionary[Pool, dict[str | None, str]] = WeakKeyDictionary()

    def in_schema(self, conn: Connection) -> AbstractContextManager[None]:
        """The ledger's schema for its statements on an admitted connection, where one was chosen."""
        return schemas.chosen(conn, self._database().schema)

    def are_known(self, conn: Connection) -> bool:
        """Whether there is nothing to ask. Raises: InputError when SQLite's file was replaced under the engine."""
        place = self._known.get(conn.engine.pool, {}).get(self._search_path(conn))
        if place is not None and conn.dialect.name == "sqlite" and place != self.own_place():
            raise self._refused(
                conn, "has a file open that was deleted or replaced since: call dispose() on its engine"
            )
        return place is not None

    def own_place(self) -> str:
        """Where the ledger is. Raises: LedgerUnavailable."""
        database = self._database()
        if database.file is not None:
            return _place_of_file(str(database.file))
        return str(database.ask(lambda conn: conn.execute(_PLACE, self._runs()).one())[0])

    def admit(self, conn: Connection, own_place: str) -> None:
        """
        Remember the engine of a connection that leads to `own_place` and finds the tables of this release there.

        Raises: InputError for any other, SchemaBehind.
        """
        if conn.dialect.name == "sqlite":
            place = _place_of_file(str(conn.exec_driver_sql("PRAGMA database_list").all()[0][2] or ""))
        else:
            place, encoding = conn.execute(_PLACE, self._runs()).one()
            if encoding not in {"UTF8", "UNICODE"}:
                raise self._refused(conn, f"speaks {encoding}, in which not every text can be sent: use UTF8")
        if place != own_place:
            raise self._refused(conn, "leads to another one, or to another schema of it")
        if self._has_tables(conn):
            paths = self._known.setdefault(conn.engine.pool, {})
            if len(paths) >= _MOST_PATHS:
                paths.clear()
            paths[self._search_path(conn)] = place

    def require_kind(self, conn: Connection) -> None:
        """Before anything is asked of it. Raises: InputError for a database of another kind."""
        if conn.dialect.name != self._database().url.get_backend_name():
            raise self._refused(conn, f"leads to {conn.dialect.name}")

    def _runs(self) -> dict[str, str]:
        return {"runs": schemas.qualified("runclaim_runs", self._database().schema)}

    def _search_path(self, conn: Connection) -> str | None:
        """
        The search path as the server has told it of its own accord (PostgreSQL 18 and psycopg), else `None`.

        Where the schema is chosen, any path leads to it.
        """
        status = getattr(getattr(conn.connection.driver_connection, "info", None), "parameter_status", None)
        found: str | None = None if status is None or self._database().schema else status("search_path")
        return found

    def _has_tables(self, conn: Connection) -> bool:
        """False where the transaction has just made them, and may roll back. Raises: SchemaBehind."""
        raw: Any = conn.connection.driver_connection
        if conn.dialect.name == "sqlite" and raw.in_transaction:
            # It may be what keeps the file locked: a second connection would wait for it in vain.
            return migrations.require_current_on(conn, str(self._database()))
        self._require_schema()
        return True

    def _refused(self, conn: Connection, why: str) -> InputError:
        return InputError(
            "session",
            f"is on {masked(conn.engine.url.render_as_string())}, and the ledger is {self._database()}: the session"
            f" {why}, and workers would never see the run. Set RUNCLAIM_DATABASE_URL to the session's database, or"
            " enqueue without session=",
        )


@contextmanager
def untranslated(conn: Connection) -> Iterator[Connection]:
    """The connection without its map of schemas, which would send the ledger's statements to a tenant's."""
    given = conn.get_execution_options().get("schema_translate_map")
    if not given:
        yield conn
        return
    conn.execution_options(schema_translate_map=None)
    try:
        yield conn
    finally:
        conn.execution_options(schema_translate_map=given)


def _place_of_file(path: str) -> str:
    try:
        there = os.stat(path)  # noqa: PTH116 - also for the name of no file
    except OSError:
        return "no file"
    return f"{there.st_dev}/{there.st_ino}"
