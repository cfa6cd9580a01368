"""The end of a test on a ledger: nothing writes any more, and whoever gets its database next finds it empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tests.harness.bench import Bench

KEPT = {"runclaim_schema_version"}


def put_away(bench: Bench) -> None:
    """Close a bench, and empty the PostgreSQL that the next test gets too; a file of SQLite is one test's own."""
    # Its keeper writes what it has counted when it ends: a ledger emptied before would have it in the next test.
    bench.close()
    if bench.database.engine.dialect.name == "postgresql":
        _empty(bench.database.engine)
        bench.database.close()


def _empty(engine: Engine) -> None:
    with engine.begin() as conn:
        for table in set(inspect(conn).get_table_names()) - KEPT:
            ours = table.startswith("runclaim_")
            conn.execute(text(f"DELETE FROM {table}" if ours else f"DROP TABLE {table}"))
