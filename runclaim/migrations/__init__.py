"""
The ledger's schema: upgrading it, and refusing to work on one that is behind.

The scripts are in the wheel. An empty SQLite file is made on first use, so a laptop needs no command;
everything else waits for `runclaim db upgrade`.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

from runclaim.errors import ConfigError, SchemaAhead, SchemaBehind
from runclaim.sql import ledger_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config as AlembicConfig
    from sqlalchemy import Connection

    from runclaim.database import Database

#: The revision that this release brings; a test holds it against the newest script.
HEAD: Final = "0007"
#: The oldest revision that it can work on.
OLDEST: Final = "0007"
VERSION_TABLE: Final = "runclaim_schema_version"
#: Which scripts were applied, and since when which releases can work on the tables; there from 0008 on.
SCHEMA_TABLE: Final = "runclaim_schema"
_HIDES_ROWS: Final = text("SELECT row_security_active(CAST(:name AS TEXT))")
_LOCK: Final = 7_236_418_250_113  # any number; the same for every runclaim that upgrades this database


def current(database: Database) -> str | None:
    """The revision of the ledger's tables, or `None` when there are none."""
    if database.file is not None and not database.file.exists():
        return None
    return database.ask(revision)


def revision(conn: Connection) -> str | None:
    """As `current`, on the caller's connection. Raises: ConfigError when the table is there and its row is not."""
    if not inspect(conn).has_table(VERSION_TABLE):
        return None
    found: str | None = conn.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    if found is None:
        raise ConfigError(_without_a_row(conn))
    return found


def require_fit(conn: Connection, found: str | None, url: str) -> None:
    """
    Return when this release can work on the tables at revision `found`.

    Those of a later release say by `runs_with` which older ones can. Raises: SchemaBehind, SchemaAhead.
    """
    if found is None or found < OLDEST:
        raise SchemaBehind(found, HEAD, url)
    if found > HEAD and runs_with(conn, found) > HEAD:
        raise SchemaAhead(found, HEAD, url)


def runs_with(conn: Connection, found: str) -> str:
    """The oldest revision whose releases can work on the tables at `found`, as its script has written it there."""
    if not inspect(conn).has_table(SCHEMA_TABLE):
        return found
    asked = text(f"SELECT runs_with FROM {SCHEMA_TABLE} WHERE revision = :found")  # noqa: S608 - a constant
    return conn.execute(asked, {"found": found}).scalar() or found


def _without_a_row(conn: Connection) -> str:
    """Why the table of the revision shows no row: an upgrade writes both in one transaction."""
    if conn.dialect.name == "postgresql" and conn.execute(_HIDES_ROWS, {"name": VERSION_TABLE}).scalar():
        role = conn.exec_driver_sql("SELECT current_user").scalar()
        return (
            f"row level security hides the rows of {VERSION_TABLE} from the role {role}: the ledger's own role has to"
            " see its tables. Turn it off for each of them (ALTER TABLE … DISABLE ROW LEVEL SECURITY), or: ALTER ROLE"
            f" {role} BYPASSRLS"
        )
    return (
        f"{VERSION_TABLE} is empty, so the release of these tables is unknown: put the row back"
        " (its version_num is in any backup), or drop the table if it is the only one of runclaim's"
    )


def require_current(database: Database, *, was_there: bool = False) -> None:
    """
    Return when the schema fits this release.

    `was_there` says that this process has had the ledger before: then a SQLite file is not created again. Raises:
    SchemaBehind, which names the command that upgrades it; SchemaAhead; LedgerUnavailable.
    """
    found = database.ask(revision) if was_there else current(database)
    if found is None and database.file is not None and not was_there:
        upgrade(database)
    elif found != HEAD:
        database.ask(lambda conn: require_fit(conn, found, str(database)))


def require_current_on(conn: Connection, url: str) -> bool:
    """
    As `require_current` for SQLite, on a connection that may be what keeps the file locked.

    Returns: false where the tables were made in its transaction, which the caller owns. Raises: SchemaBehind,
    SchemaAhead.
    """
    found = revision(conn)
    if found is None:
        _migrate(conn)
    elif found != HEAD:
        require_fit(conn, found, url)
    return found is not None


def upgrade(database: Database) -> tuple[str | None, str]:
    """
    Bring the schema to this release; one upgrade at a time.

    Returns: the revision before and after; tables of a later release that fit this one are left as they are. Raises:
    SchemaAhead; ConfigError where the ledger could not live.
    """
    if database.file is not None:
        ledger_file.make(database.file)
    with database.engine.connect() as conn:
        if conn.dialect.name == "postgresql":
            # A process that waited for the lock must see what the one before has created, whatever the database's
            # default.
            conn.execution_options(isolation_level="READ COMMITTED")
            # It may wait for its locks for longer than a verb.
            conn.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")
            _require_fit(conn)
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = revision(conn)
        if before is not None and before > HEAD:
            require_fit(conn, before, str(database))
        elif before != HEAD:
            _migrate(conn)
        after = revision(conn) or HEAD
        conn.commit()
    return before, after


def _migrate(conn: Connection) -> None:
    with _quiet_alembic():
        from alembic import command

        command.upgrade(_alembic(conn), HEAD)


@contextmanager
def _quiet_alembic() -> Iterator[None]:
    """Alembic logs every plugin that it loads, which does not belong in an application's log; keep its level."""
    theirs = logging.getLogger("alembic")  # noqa: TID251 - not ours
    level = theirs.level
    theirs.setLevel(logging.WARNING)
    try:
        yield
    finally:
        theirs.setLevel(level)


def _require_fit(conn: Connection) -> None:
    """Raises: ConfigError where PostgreSQL could not hold the ledger."""
    encoding, schema = conn.exec_driver_sql("SELECT current_setting('server_encoding'), current_schema()").one()
    if encoding != "UTF8":
        raise ConfigError(
            f"the database has the encoding {encoding}, which cannot hold every text: the ledger needs UTF8."
            " Make another one: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
        )
    if schema is None:
        raise ConfigError(
            "the search_path names no schema that exists and that this role may use, so the tables cannot be"
            " created: CREATE SCHEMA, or GRANT USAGE ON SCHEMA … TO the role, or set another search_path for it"
        )


def differences(database: Database) -> list[str]:
    """What differs between the database and what this release needs, one line each; empty when they agree."""
    from runclaim.migrations import definitions

    with database.read() as conn:
        return definitions.differences(conn)


def _alembic(conn: Connection) -> AlembicConfig:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "runclaim:migrations")
    config.attributes["connection"] = conn
    return config
