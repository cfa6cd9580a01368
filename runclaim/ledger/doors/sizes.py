"""sizes: how much each table holds, by what the database knows without reading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, text

from runclaim.models.base import Base

if TYPE_CHECKING:
    from sqlalchemy import Connection

_TABLES: Final = tuple(sorted(Base.metadata.tables))
#: An estimate, as the last vacuum or analyze left it.
_ON_POSTGRESQL: Final = text(
    "SELECT relname, greatest(reltuples, 0), pg_total_relation_size(oid) FROM pg_class"
    " WHERE oid IN (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)"
).bindparams(bindparam("names"))
#: Rows come at the end and mostly go from the beginning.
_ON_SQLITE: Final = " UNION ALL ".join(
    f"SELECT '{name}', (SELECT coalesce(max(rowid), 0) FROM {name})"  # noqa: S608 - our own names
    f" - (SELECT coalesce(min(rowid), 1) FROM {name}) + 1, 0"
    for name in _TABLES
)


@dataclass(frozen=True, slots=True)
class Size:
    """About how many rows a table has, and how many bytes with its indexes; 0 where the database does not say."""

    table: str
    rows: int
    bytes: int


def sizes(conn: Connection) -> list[Size]:
    """The size of every table of the ledger. Reads no table."""
    if conn.dialect.name == "postgresql":
        found = conn.execute(_ON_POSTGRESQL, {"names": list(_TABLES)}).all()
    else:
        found = conn.execute(text(_ON_SQLITE)).all()
    return sorted((Size(name, int(rows), int(size)) for name, rows, size in found), key=lambda each: each.table)
