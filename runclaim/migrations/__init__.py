"""
The ledger's schema: upgrading it, and refusing to work on one that does not fit.

The scripts are in the wheel. An empty SQLite file is made on first use, so a laptop needs no command;
everything else waits for `runclaim db upgrade`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from runclaim.errors import ConfigError, SchemaAhead, SchemaBehind
from runclaim.migrations.revisions import HEAD as HEAD
from runclaim.migrations.revisions import OLDEST as OLDEST
from runclaim.migrations.revisions import OURS
from runclaim.migrations.revisions import SCHEMA_TABLE as SCHEMA_TABLE
from runclaim.migrations.revisions import VERSION_TABLE as VERSION_TABLE
from runclaim.migrations.window import fitting as fitting
from runclaim.migrations.window import require_compatible
from runclaim.migrations.window import revision as revision
from runclaim.sql import ledger_file
from runclaim.sql.schemas import quoted, schema_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from runclaim.database import Database
    from runclaim.migrations.revisions import Schema

_HAS_SCHEMA: Final = text("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = :schema)")


def current(database: Database) -> str | None:
    """The revision of the ledger's tables, or `None` when there are none."""
    if database.file is not None and not database.file.exists():
        return None
    return database.ask(revision)


def require_current(database: Database, *, was_there: bool = False, schema: Schema = OURS) -> None:
    """
    Return when this release works on the schema.

    `was_there` says that this process has had the ledger before: then a SQLite file is not created again. Raises:
    SchemaBehind, which names the command that upgrades it; SchemaAhead; LedgerUnavailable.
    """
    is_missing = database.file is not None and not was_there and not database.file.exists()
    found = None if is_missing else database.ask(lambda conn: fitting(conn, str(database), schema))
    if found is not None:
        return
    if database.file is None or was_there:
        raise SchemaBehind(None, schema.head, str(database))
    upgrade(database, schema)


def require_current_on(conn: Connection, url: str) -> bool:
    """
    As `require_current` for SQLite, on a connection that may be what keeps the file locked.

    Returns: false where the tables were made in its transaction, which the caller owns. Raises: SchemaBehind,
    SchemaAhead.
    """
    found = fitting(conn, url)
    if found is None:
        from runclaim.migrations import scripts

        scripts.run(conn, OURS, OURS.head)
    return found is not None


def misfit(database: Database, found: str | None) -> SchemaBehind | SchemaAhead | None:
    """Why `db check` has nothing to compare: no tables, older ones, or newer ones on which this release cannot work."""
    if found is None or found < HEAD:
        return SchemaBehind(found, HEAD, str(database))
    try:
        database.ask(lambda conn: fitting(conn, str(database)))
    except SchemaAhead as ahead:
        return ahead
    return None


def upgrade(
    database: Database, schema: Schema = OURS, *, wait: float = 60.0, say: Callable[[str], None] = lambda _line: None
) -> tuple[str | None, str]:
    """
    Bring the schema to this release; one upgrade at a time. A newer one on which this release works is left as it is.

    `wait` is how many seconds each step waits for what is in its way; `say` is told what is locked, and what it took.
    Returns: the revision before and after. Raises: SchemaAhead; ConfigError where the ledger could not live;
    LedgerUnavailable when `wait` is over.
    """
    if database.file is not None:
        ledger_file.make(database.file)
        return _upgrade_file(database, schema)
    return _upgrade_server(database, schema, wait, say)


def _upgrade_file(database: Database, schema: Schema) -> tuple[str | None, str]:
    """On SQLite: all of it in one transaction, which no one can write in meanwhile."""
    from runclaim.migrations import scripts

    with database.engine.connect() as conn:
        before = revision(conn)
        if before is not None and before > schema.head:
            require_compatible(conn, before, str(database), schema)
            return before, before
        if scripts.between(schema, before, schema.head):
            scripts.run(conn, schema, schema.head)
        conn.commit()
    return before, schema.head


def _upgrade_server(
    database: Database, schema: Schema, wait: float, say: Callable[[str], None]
) -> tuple[str | None, str]:
    """On PostgreSQL: what no one uses yet in one transaction, and what is in use in steps."""
    from runclaim.migrations import scripts, steps

    effort = steps.Effort(wait, say)
    with steps.alone(database, effort) as conn:
        _create_schema(conn)
        _require_fit(conn)
        before = database.ask(revision)
        if before is not None and before > schema.head:
            database.ask(lambda read: require_compatible(read, before, str(database), schema))
            return before, before
        if before is None:
            scripts.run(conn, schema, schema.head)
            conn.commit()
        else:
            steps.climb(database, schema, before, effort)
    return before, schema.head


def _create_schema(conn: Connection) -> None:
    """Create the schema that was chosen, unless it is there: who may not create one may use one."""
    schema = schema_on(conn)
    if schema is not None and not conn.execute(_HAS_SCHEMA, {"schema": schema}).scalar():
        conn.exec_driver_sql(f"CREATE SCHEMA {quoted(schema)}")


def _require_fit(conn: Connection) -> None:
    """Raises: ConfigError where PostgreSQL could not hold the ledger."""
    encoding, schema = conn.exec_driver_sql("SELECT current_setting('server_encoding'), current_schema()").one()
    if encoding != "UTF8":
        raise ConfigError(
            f"the database has the encoding {encoding}, which cannot hold every text: the ledger needs UTF8."
            " Make another one: CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
        )
    if (chosen := schema_on(conn)) is not None and schema != chosen:
        raise ConfigError(f"this role may not use the schema {chosen}: GRANT USAGE, CREATE ON SCHEMA {quoted(chosen)}")
    if schema is None:
        raise ConfigError(
            "the search_path names no schema that exists and that this role may use, so the tables cannot be"
            " created: CREATE SCHEMA, or GRANT USAGE ON SCHEMA … TO the role, or set another search_path for it"
        )


def differences(database: Database) -> list[str]:
    """
    What differs between the database and what this release needs, one line each; empty when they agree.

    What only a newer schema has is not counted as one.
    """
    from runclaim.migrations import definitions

    with database.read() as conn:
        found = revision(conn)
        return definitions.differences(conn, is_newer=found is not None and found > HEAD)
