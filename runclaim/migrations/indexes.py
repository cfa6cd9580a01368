"""
Indexes of tables that are in use: on PostgreSQL made CONCURRENTLY, outside any transaction, so that no one waits.

They have a script of their own, which says `concurrently = True` and makes them with `add_index`. SQLite, and a
PostgreSQL that had no tables yet, get them in the transaction. One that failed half-way is invalid: it is made again.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from alembic import op
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

#: The options of Alembic's context, as `add_index` finds them: it makes indexes in the transaction unless told
#: otherwise by the first.
HOW: Final = "runclaim_indexes"
APART: Final = "made CONCURRENTLY"
ALREADY: Final = "already made"
_ONLY_INVALID: Final = "runclaim_only_invalid"
_SAY: Final = "runclaim_say"
_IS_VALID: Final = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def add_index(name: str, table: str, columns: Sequence[str], *, where: str | None = None, unique: bool = False) -> None:
    """Make an index of a table that may be in use; `where` says which rows it holds. For scripts."""
    options = op.get_context().opts
    is_apart = options.get(HOW) == APART
    if options.get(HOW) == ALREADY or (
        is_apart and not _is_wanted(name, only_invalid=options.get(_ONLY_INVALID, False), say=options.get(_SAY))
    ):
        return
    rows = None if where is None else text(where)
    op.create_index(
        name,
        table,
        list(columns),
        unique=unique,
        postgresql_where=rows,
        sqlite_where=rows,
        postgresql_concurrently=is_apart,
    )


def _is_wanted(name: str, *, only_invalid: bool, say: Callable[[str], None] | None) -> bool:
    """Whether it is to be made; an invalid one is dropped before."""
    drop = f"DROP INDEX CONCURRENTLY IF EXISTS {name}"
    if op.get_context().as_sql:
        op.execute(drop)
        return True
    is_valid: bool | None = op.get_bind().execute(_IS_VALID, {"name": name}).scalar()
    is_wanted = not (only_invalid if is_valid is None else is_valid)
    if is_wanted and say is not None:
        say(f"makes {name}{'' if is_valid is None else ' again, which is invalid'}; no one waits for it")
    if is_wanted and is_valid is not None:
        op.execute(drop)
    return is_wanted


@contextmanager
def apart(conn: Connection, *, only_invalid: bool, say: Callable[[str], None]) -> Iterator[None]:
    """
    Scripts that are called inside make indexes CONCURRENTLY on this connection, which begins no transactions.

    `only_invalid` makes those again that are invalid, and no other.
    """
    options = {HOW: APART, _ONLY_INVALID: only_invalid, _SAY: say}
    with Operations.context(MigrationContext.configure(conn, opts=options)):
        yield
