"""The statements of an upgrade as text, for a person who applies them: psql and sqlite3 take them as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runclaim.errors import ConfigError
from runclaim.migrations import scripts
from runclaim.migrations.indexes import ALREADY
from runclaim.migrations.revisions import OURS
from runclaim.sql.schemas import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.script import Script

    from runclaim.migrations.revisions import Schema

_APPLY: Final = {
    "postgresql": "psql --set ON_ERROR_STOP=1 --file=… (not in one transaction: no --single-transaction)",
    "sqlite": "sqlite3 -bail ledger.db < …",
}


def statements(
    dialect: str,
    start: str | None = None,
    end: str | None = None,
    schema: Schema = OURS,
    *,
    chosen: str | None = None,
) -> str:
    """
    What leads from one revision, or from no tables, to another: by default to that of this release.

    `chosen` is the schema of PostgreSQL for the tables.

    As `db upgrade` does it: tables that no one uses yet in one transaction; those in use on PostgreSQL in a transaction
    for each script, and their indexes CONCURRENTLY. Raises: ConfigError.
    """
    goal = end or schema.head
    if start is not None and start > goal:
        raise ConfigError(f"there is no way back from {start} to {goal}: older releases work on newer tables")
    steps = scripts.between(schema, start, goal)
    if not steps:
        return ""
    head = [f"-- runclaim: from {start or 'no tables'} to {goal}, for {dialect}.", f"-- {_APPLY[dialect]}", ""]
    if chosen is not None and dialect == "postgresql":
        head += [f"CREATE SCHEMA IF NOT EXISTS {quoted(chosen)};", f"SET search_path TO {quoted(chosen)};", ""]
    if start is None or dialect == "sqlite":
        return "\n".join([*head, scripts.printed(schema, start, goal, dialect)])
    return "\n".join([*head, *(part for script in steps for part in _of_step(schema, script))])


def _of_step(schema: Schema, script: Script) -> Iterator[str]:
    indexes = None
    if scripts.is_concurrent(script):
        indexes = ALREADY
        yield "-- Outside a transaction. Each index can be made again, from its DROP, if it fails.\n"
        yield scripts.printed_apart(script)
    yield scripts.printed(schema, str(script.down_revision), script.revision, "postgresql", indexes=indexes)
