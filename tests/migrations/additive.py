"""What a script may do while an older release works on the same tables, by the statements that it executes."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runclaim.database import Database

_CREATED = re.compile(r"CREATE TABLE (\w+)")
_INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?\w+ ON (\w+)")
_COLUMN = re.compile(r"ALTER TABLE \w+ ADD COLUMN (.*)")
#: A default of any other kind would be computed for each row.
_LITERAL = re.compile(r"DEFAULT (?:'[^']*'|\d+|true|false|NULL)(?= |$)")
_SCANS = re.compile(r"\b(?:CHECK|REFERENCES|UNIQUE|PRIMARY KEY|GENERATED)\b")
_OWN_ROWS = re.compile(r"(?:INSERT INTO|UPDATE) (?:runclaim_schema|runclaim_schema_version)\b")
_READS = re.compile(r"SELECT|SET|LOCK TABLE|RESET|SHOW|PRAGMA|BEGIN|COMMIT|WITH")


@contextmanager
def executed(database: Database) -> Iterator[list[str]]:
    """The statements that are executed meanwhile, each on one line."""
    found: list[str] = []

    def note(_conn, _cursor, statement, *_) -> None:
        found.append(re.sub(r"\s+", " ", statement).strip())

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(database.engine, "before_cursor_execute", note)


def objections(statements: Sequence[str], dialect: str) -> list[str]:
    """Those that are not additive."""
    created = {name for statement in statements for name in _CREATED.findall(statement)}
    return [statement for statement in statements if not _is_additive(statement, created, dialect)]


def _is_additive(statement: str, created: set[str], dialect: str) -> bool:
    if _CREATED.match(statement) or _READS.match(statement) or _OWN_ROWS.match(statement):
        return True
    if index := _INDEX.match(statement):
        concurrently, table = index.groups()
        return table in created or concurrently is not None or dialect == "sqlite"
    if column := _COLUMN.match(statement):
        return _is_free(column[1])
    return False


def _is_free(column: str) -> bool:
    """Whether a column can be added without a look at the rows that are there, and older releases may leave it out."""
    has_literal = _LITERAL.search(column) is not None
    needs_default = "NOT NULL" in column
    return not _SCANS.search(column) and (has_literal or ("DEFAULT" not in column and not needs_default))
