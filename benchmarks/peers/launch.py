"""
Start a peer's script with the bench's folder on its path: `python launch.py FOLDER SCRIPT ARGUMENTS`.

Runs in the peer's own environment. The bench counts WAL writes in `pg_stat_wal`; since PostgreSQL 18 they stand in
`pg_stat_io`, so its counters are replaced by these. Nothing of the peer is touched.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Become the script."""
    folder, script, *arguments = sys.argv[1:]
    sys.path[:1] = [str(Path(script).parent), folder]
    import common  # the peers' bench

    def counters(database: str | None) -> dict[str, int]:
        if not database:
            return {}
        with common.pg(database) as connection:
            return _counted(connection)

    common.pg_counters = counters
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def _counted(connection: Any) -> dict[str, int]:
    commits = "SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    records = "SELECT wal_records, wal_bytes::bigint FROM pg_stat_wal"
    flushes = (
        "SELECT sum(fsyncs)::bigint, sum(writes)::bigint FROM pg_stat_io WHERE object = 'wal'"
        if connection.info.server_version >= 180000  # noqa: PLR2004 - how libpq tells of 18.0
        else "SELECT wal_sync, wal_write FROM pg_stat_wal"
    )
    names = ("commit", "rollback"), ("wal_records", "wal_bytes"), ("wal_sync", "wal_write")
    found: dict[str, int] = {}
    for name, asked in zip(names, (commits, records, flushes), strict=True):
        found |= zip(name, connection.execute(asked).fetchone(), strict=True)
    return found


if __name__ == "__main__":
    main()
