"""
The window of schemas: a release works on any from its oldest to the newest that declares itself compatible.

Each script declares `runs_with`, the oldest head revision whose releases work on the tables as the script leaves them.
It is kept in the database, so that a release can ask about scripts which it does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, text

from runclaim.errors import ConfigError, SchemaAhead, SchemaBehind
from runclaim.migrations.revisions import OURS, SCHEMA_TABLE, VERSION_TABLE
from runclaim.sql.schemas import qualified, schema_on

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.migrations.revisions import Schema

_HIDES_ROWS: Final = text("SELECT row_security_active(CAST(:name AS TEXT))")


def revision(conn: Connection) -> str | None:
    """The revision of the tables, `None` without any. Raises: ConfigError when the row of the revision is gone."""
    if (table := _table(conn, VERSION_TABLE)) is None:
        return None
    found: str | None = conn.execute(text(f"SELECT version_num FROM {table}")).scalar()  # noqa: S608 - quoted
    if found is None:
        raise ConfigError(_without_a_row(conn))
    return found


def fitting(conn: Connection, url: str, schema: Schema = OURS) -> str | None:
    """
    The revision of the tables, on which this release works; `None` without any.

    `url` is the ledger as errors may show it. Raises: SchemaBehind, SchemaAhead; ConfigError as `revision`.
    """
    found = revision(conn)
    if found is None:
        return None
    if found < schema.oldest:
        raise SchemaBehind(found, schema.oldest, url)
    if found > schema.head:
        require_compatible(conn, found, url, schema)
    return found


def require_compatible(conn: Connection, found: str, url: str, schema: Schema = OURS) -> None:
    """Return when newer tables say that this release works on them. Raises: SchemaAhead."""
    newer = {}
    if (table := _table(conn, SCHEMA_TABLE)) is not None:
        asked = text(f"SELECT revision, runs_with FROM {table} WHERE revision > :head")  # noqa: S608 - quoted
        newer = {row.revision: row.runs_with for row in conn.execute(asked, {"head": schema.head})}
    needed = max(newer.values()) if found in newer else None
    if needed is None or needed > schema.head:
        raise SchemaAhead(found, schema.head, needed, url)


def _table(conn: Connection, name: str) -> str | None:
    """The table as SQL has it, `None` without it; one further down the search path is another ledger's."""
    schema = schema_on(conn)
    return qualified(name, schema) if inspect(conn).has_table(name, schema=schema) else None


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
