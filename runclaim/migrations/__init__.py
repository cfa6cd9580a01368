"""
The ledger's schema: upgrading it, and refusing to work on one that is behind.

The scripts are in the wheel. An empty SQLite file is made on first use, so a laptop needs no command;
everything else waits for `runclaim db upgrade`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

from runclaim.errors import SchemaBehind

if TYPE_CHECKING:
    from alembic.config import Config as AlembicConfig
    from sqlalchemy import Connection

    from runclaim.database import Database

#: The revision this release needs; a test holds it against the newest script.
HEAD: Final = "0007"
VERSION_TABLE: Final = "runclaim_schema_version"
_LOCK: Final = 7_236_418_250_113  # any number; the same for every runclaim that upgrades this database


def current(database: Database) -> str | None:
    """The revision of the ledger's tables, or `None` when there are none."""
    return database.ask(revision)


def revision(conn: Connection) -> str | None:
    """As `current`, on the caller's connection."""
    if not inspect(conn).has_table(VERSION_TABLE):
        return None
    found: str | None = conn.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return found


def require_current(database: Database) -> None:
    """Return when the schema fits this release. Raises: SchemaBehind, which names the command that mends it."""
    found = current(database)
    if found is None and database.url.get_backend_name() == "sqlite":
        upgrade(database)
    elif found != HEAD:
        raise SchemaBehind(found, HEAD, str(database))


def upgrade(database: Database) -> tuple[str | None, str]:
    """
    Bring the schema to this release; one upgrade at a time.

    Returns: the revision before and after.
    """
    # Alembic tells of every plugin that it loads; an application's log is no place for that.
    logging.getLogger("alembic").setLevel(logging.WARNING)  # noqa: TID251 - not ours
    from alembic import command

    with database.engine.connect() as conn:
        if conn.dialect.name == "postgresql":
            # Whoever waited for the lock has to see what the one before has made, whatever the database's default.
            conn.execution_options(isolation_level="READ COMMITTED")
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = revision(conn)
        if before != HEAD:
            command.upgrade(_alembic(conn), HEAD)
        conn.commit()
    return before, HEAD


def differences(database: Database) -> list[str]:
    """What differs between the database and the models, one line each; empty when they agree."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from runclaim.models import metadata

    ours = set(metadata.tables)

    def is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:  # noqa: FBT001
        return kind != "table" or name in ours

    with database.read() as conn:
        context = MigrationContext.configure(
            conn, opts={"include_object": is_ours, "compare_type": True, "version_table": VERSION_TABLE}
        )
        return [str(difference) for difference in compare_metadata(context, metadata)]


def _alembic(conn: Connection) -> AlembicConfig:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "runclaim:migrations")
    config.attributes["connection"] = conn
    return config
