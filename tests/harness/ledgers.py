"""
The beginning and the end of a test on a ledger: its tables are there and empty, and so they are for whoever is next.

What the migrations make of an empty file is always the same, so they run once a process and are copied from then on.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from runclaim import migrations
from runclaim.database import Database
from runclaim.sql import ledger_file

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tests.harness.bench import Bench

#: Ours are emptied, but for the schema's version; a test's own are dropped. One trip to the server for all of them.
_EMPTY = """
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT tablename FROM pg_tables
        WHERE schemaname = current_schema() AND tablename NOT IN ('runclaim_schema_version', 'runclaim_schema')
    LOOP
        EXECUTE format(
            CASE WHEN starts_with(name, 'runclaim_') THEN 'DELETE FROM %I' ELSE 'DROP TABLE %I' END, name
        );
    END LOOP;
END $$
"""


def migrate(database: Database) -> None:
    """Bring the schema of a ledger to this release, as `db upgrade` does."""
    if database.file is not None and not database.file.exists():
        ledger_file.make(database.file)
        shutil.copyfile(_migrated(), database.file)
        # An upgrade has opened the file; one that goes away later was there, and is not a wrong path.
        database.ask(lambda conn: conn.scalar(text("SELECT 1")))
    else:
        migrations.upgrade(database)


@cache
def _migrated() -> Path:
    folder = tempfile.mkdtemp(prefix="runclaim-migrated-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    file = Path(folder, "ledger.db")
    database = Database(f"sqlite:///{file}", patience=timedelta(seconds=20))
    migrations.upgrade(database)
    # The last connection that is closed leaves everything in the one file.
    database.close()
    return file


def put_away(bench: Bench) -> None:
    """Close a bench, and empty the PostgreSQL that the next test gets too; a file of SQLite is one test's own."""
    # Its keeper writes what it has counted when it ends: a ledger emptied before would have it in the next test.
    bench.close()
    if bench.database.engine.dialect.name == "postgresql":
        _empty(bench.database.engine)
        bench.database.close()


def _empty(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text(_EMPTY))
