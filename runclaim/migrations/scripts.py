"""The scripts, run or printed by Alembic; each leaves a row that says which releases work on its tables."""

from __future__ import annotations

import io
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Text, column, table

from runclaim.errors import ConfigError
from runclaim.migrations.indexes import APART, HOW
from runclaim.migrations.revisions import OURS, SCHEMA_TABLE, VERSION_TABLE
from runclaim.sql.clock import Instant, now
from runclaim.sql.schemas import quoted, schema_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.runtime.migration import MigrationInfo
    from alembic.script import Script
    from sqlalchemy import Connection

    from runclaim.migrations.revisions import Schema

#: As every script from 0008 on knows it; the model may be of a later one.
_APPLIED: Final = table(
    SCHEMA_TABLE, column("revision", Text()), column("runs_with", Text()), column("applied_at", Instant())
)


def between(schema: Schema, start: str | None, end: str) -> list[Script]:
    """
    The scripts that lead from one revision, or from no tables, to another; the first comes first.

    Raises: ConfigError for a revision below the newest that this release does not have.
    """
    directory = ScriptDirectory.from_config(_config(schema))
    known = [script.revision for script in directory.walk_revisions()]
    for each in (start, end):
        if each is not None and each not in known:
            raise ConfigError(
                f"{each} is not one of the revisions of runclaim ({', '.join(sorted(known))}). If {VERSION_TABLE} in"
                " the database says so, put its row back as it is in a backup"
            )
    return list(directory.iterate_revisions(end, start or "base"))[::-1]


def is_concurrent(script: Script) -> bool:
    """Whether the script only makes indexes of tables that are in use."""
    return bool(getattr(script.module, "concurrently", False))


def run(conn: Connection, schema: Schema, end: str, *, indexes: str | None = None) -> None:
    """Run the scripts up to a revision, in the caller's transaction. `indexes` may say that they are `ALREADY` made."""
    if (chosen := schema_on(conn)) is not None:
        # What is not there is not looked for in another schema, where it would be another ledger's.
        conn.exec_driver_sql(f"SET LOCAL search_path TO {quoted(chosen)}")
    with _quiet_alembic():
        command.upgrade(_config(schema, connection=conn, options={HOW: indexes}), end)


def record(ctx: MigrationContext, step: MigrationInfo, heads: object, run_args: object) -> None:  # noqa: ARG001 - as Alembic calls it
    """After each script, in its transaction: which releases work on its tables."""
    script: Any = step.up_revision
    # Before 0008 there was no table to say it in.
    if (oldest := getattr(script.module, "runs_with", None)) is not None:
        ctx.impl.execute(_APPLIED.insert().values(revision=script.revision, runs_with=oldest, applied_at=now()))


def printed(schema: Schema, start: str | None, end: str, dialect: str, *, indexes: str | None = None) -> str:
    """The statements of the scripts from one revision to another, in one transaction; see `run`."""
    text = io.StringIO()
    config = _config(schema, dialect=dialect, options={HOW: indexes})
    config.output_buffer = text
    with _quiet_alembic():
        command.upgrade(config, f"{start or 'base'}:{end}", sql=True)
    return text.getvalue()


def printed_apart(script: Script) -> str:
    """The statements by which PostgreSQL makes the script's indexes outside a transaction."""
    text = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        opts={"as_sql": True, "literal_binds": True, "output_buffer": text, HOW: APART},
    )
    with Operations.context(context):
        script.module.upgrade()
    return text.getvalue()


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


def _config(schema: Schema = OURS, **given: Any) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", "runclaim:migrations")
    config.set_main_option("path_separator", "os")
    folders = os.pathsep.join(str(folder) for folder in schema.folders)
    config.set_main_option("version_locations", folders.replace("%", "%%"))
    config.attributes.update(given)
    return config
