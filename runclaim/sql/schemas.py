"""
The schema of PostgreSQL that an application has chosen for the ledger's tables.

Statements name no schema: in sessions of ours it is the first of the search path, set once for each; in sessions of the
application it is put there for the ledger's statements alone. Without a choice nothing is sent.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

#: The option of our connections that has it.
OPTION: Final = "runclaim_schema"
_FIRST: Final = "CONCAT_WS(', ', CAST({} AS TEXT), current_setting('search_path'))"
_CHOOSE: Final = f"SELECT set_config('search_path', {_FIRST.format('$1')}, false)"
#: The path that was there before it is changed, until the end of the transaction at the latest.
_ENTER: Final = text(
    f"SELECT path, set_config('search_path', {_FIRST.format(':schema')}, true)"  # noqa: S608 - constants
    " FROM (SELECT current_setting('search_path') AS path OFFSET 0) AS was"
)
_LEAVE: Final = text("SELECT set_config('search_path', :path, true)")


def quoted(schema: str) -> str:
    """A schema's name as SQL has it."""
    return '"{}"'.format(schema.replace('"', '""'))


def qualified(name: str, schema: str | None) -> str:
    """The name of a table as SQL has it, in the schema that was chosen."""
    return name if schema is None else f"{quoted(schema)}.{name}"


def schema_on(conn: Connection) -> str | None:
    """The schema that was chosen, on a connection of ours; `None` for the first of the search path."""
    found: str | None = conn.get_execution_options().get(OPTION)
    return found


def choose(schema: str) -> Callable[[Any, Any], None]:
    """For new sessions: before their other schemas, where the application's functions find their own tables."""
    return lambda raw, _record: raw.execute(_CHOOSE, [quoted(schema)])


def require(schema: str) -> Callable[[Any, Any], None]:
    """For new sessions that a pooler hands on, so that nothing may be set in them. Raises: ConfigError."""

    def check(raw: Any, _record: Any) -> None:
        if raw.execute("SELECT current_schema()").fetchone()[0] != schema:
            raise ConfigError(
                f"the schema {schema} cannot be chosen for each session behind a pooler (prepare_threshold=none), and"
                f" it is not the first of the role's: CREATE SCHEMA {quoted(schema)} if it does not exist, and ALTER"
                f" ROLE … SET search_path = {quoted(schema)}, public"
            )

    return check


@contextmanager
def chosen(conn: Connection, schema: str | None) -> Iterator[None]:
    """
    In a transaction of the application's: the ledger's schema comes first in the block, and then what was there before.

    Free without a schema; else two statements.
    """
    if schema is None:
        yield
        return
    path = conn.execute(_ENTER, {"schema": quoted(schema)}).scalar_one()
    try:
        yield
    except BaseException:
        # Where the transaction is aborted, its rollback does it.
        with suppress(SQLAlchemyError):
            conn.execute(_LEAVE, {"path": path})
        raise
    conn.execute(_LEAVE, {"path": path})
