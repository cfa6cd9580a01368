"""
The floor: what the promise costs with no framework and no broker, as a ratio to measure the others by.

    python -m benchmarks.floor DATABASE SCHEMA FOLDER SIZE

Two processes, a connection each, prepared statements, autocommit. One INSERT enqueues; a claim takes SIZE queued runs
with SKIP LOCKED; a completion keeps the result and claims the next phase in one statement, behind the fence. No rescue,
no retries, no journal, no keys: less than this is not durable, and runclaim does more.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from benchmarks.effects import effect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

_TABLES: Final = """
CREATE TABLE floor_runs (
    id bigint PRIMARY KEY, phases smallint NOT NULL, phase smallint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'queued', fence bigint NOT NULL DEFAULT 0, owner text,
    attempts integer NOT NULL DEFAULT 0, lease_expires_at timestamptz
);
CREATE INDEX floor_live ON floor_runs (state, id) WHERE state <> 'succeeded';
CREATE TABLE floor_results (
    run_id bigint, phase smallint, result jsonb, finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, phase)
);
"""
ENQUEUE: Final = "INSERT INTO floor_runs (id, phases) VALUES (%s, %s)"
ENQUEUE_MANY: Final = "INSERT INTO floor_runs (id, phases) SELECT unnest(%s::bigint[]), %s"
LIVE: Final = "SELECT EXISTS (SELECT FROM floor_runs WHERE state <> 'succeeded')"
_CLAIM: Final = """
UPDATE floor_runs
SET state = 'running', fence = fence + 1, owner = %s, attempts = attempts + 1,
    lease_expires_at = clock_timestamp() + interval '60 s'
WHERE id IN (SELECT id FROM floor_runs WHERE state = 'queued' ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING id, fence, phases
"""
_MOVE: Final = """
SET phase = floor_runs.phase + 1, fence = floor_runs.fence + 1, attempts = 1,
    state = CASE WHEN floor_runs.phase + 1 < phases THEN 'running' ELSE 'succeeded' END,
    lease_expires_at = CASE WHEN floor_runs.phase + 1 < phases THEN clock_timestamp() + interval '60 s' END
"""
_COMPLETE: Final = f"""
WITH moved AS (
    UPDATE floor_runs {_MOVE}
    WHERE id = %(run)s AND state = 'running' AND fence = %(fence)s AND owner = %(owner)s
    RETURNING id, phase - 1 AS phase
)
INSERT INTO floor_results (run_id, phase, result) SELECT id, phase, %(result)s::jsonb FROM moved
"""  # noqa: S608 - made of constants
_COMPLETE_MANY: Final = f"""
WITH told AS (
    SELECT * FROM unnest(%(runs)s::bigint[], %(fences)s::bigint[], %(results)s::jsonb[]) AS told (id, held, result)
),
moved AS (
    UPDATE floor_runs {_MOVE}
    FROM told WHERE floor_runs.id = told.id AND state = 'running' AND fence = held AND owner = %(owner)s
    RETURNING floor_runs.id, phase - 1 AS phase, result
)
INSERT INTO floor_results (run_id, phase, result) SELECT id, phase, result FROM moved
"""  # noqa: S608 - made of constants
#: Seconds between two looks at a table with nothing to do.
_PAUSE: Final = 0.001


def connect(database_url: str, schema: str) -> Connection:
    """A connection to the tables of `schema` that prepares every statement and commits each by itself."""
    address = database_url.replace("+psycopg", "")
    connection = psycopg.connect(address, autocommit=True, options=f"-c search_path={schema}")
    connection.prepare_threshold = 0
    return connection


def make(connection: Connection, schema: str) -> None:
    """New tables in `schema`, in place of older ones."""
    name = sql.Identifier(schema)
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {0} CASCADE; CREATE SCHEMA {0}").format(name), prepare=False)
    connection.execute(_TABLES, prepare=False)


def work(database_url: str, schema: str, folder: Path, size: int, owner: str) -> None:
    """Claim and work until the process is ended."""
    with connect(database_url, schema) as connection:
        while True:
            claimed = connection.execute(_CLAIM, (owner, size)).fetchall()
            if not claimed:
                time.sleep(_PAUSE)
            elif size == 1:
                _work_one(connection, folder, owner, *claimed[0])
            else:
                for phases in {phases for _, _, phases in claimed}:
                    ours = [(run, fence) for run, fence, wanted in claimed if wanted == phases]
                    _work_many(connection, folder, owner, ours, phases)


def _work_one(connection: Connection, folder: Path, owner: str, run: int, fence: int, phases: int) -> None:
    for phase in range(phases):
        result = str(effect(folder, run, phase))
        told = {"run": run, "fence": fence + phase, "owner": owner, "result": result}
        if connection.execute(_COMPLETE, told).rowcount != 1:
            return  # the claim is lost


def _work_many(
    connection: Connection, folder: Path, owner: str, claimed: Sequence[tuple[int, int]], phases: int
) -> None:
    for phase in range(phases):
        results = [str(effect(folder, run, phase)) for run, _ in claimed]
        runs, fences = [run for run, _ in claimed], [fence + phase for _, fence in claimed]
        told = {"runs": runs, "fences": fences, "owner": owner, "results": results}
        if connection.execute(_COMPLETE_MANY, told).rowcount != len(claimed):
            raise RuntimeError("a claim was lost, though nobody rescues")


def main() -> None:
    """Two workers until SIGTERM."""
    database_url, schema, folder, size = sys.argv[1:]
    told = database_url, schema, Path(folder), int(size)
    workers = [multiprocessing.Process(target=work, args=(*told, str(number)), daemon=True) for number in range(2)]
    for worker in workers:
        worker.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    main()
