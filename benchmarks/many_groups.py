"""What a run of three phases costs in groups of 1 to 100, on one connection: CPU, log and flushes."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy import text

from benchmarks.many_clients import cycle
from benchmarks.pages import table
from benchmarks.waits import address, counts
from runclaim.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

_SIZES: Final = (1, 2, 5, 10, 20, 50, 100)
#: Runs a measurement, and at least so many groups.
_RUNS, _GROUPS, _WARM = 200, 20, 8


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: milliseconds of CPU and of time, bytes, and how often."""

    server: float
    client: float
    wall: float
    wal: float
    commits: float
    flushes: float


def measured(url: str, *, rounds: int, say: Callable[[str], None]) -> tuple[str, str]:
    """The name of the part and its table."""
    found: dict[int, list[Cost]] = {size: [] for size in _SIZES}
    with closing(Database(url, pool_size=1, patience=timedelta(seconds=30))) as database:
        for turn in range(rounds):
            for size in _SIZES if turn % 2 == 0 else reversed(_SIZES):
                found[size].append(cost(database, size))
            say(f"groups: round {turn + 1} of {rounds}")
    rows = []
    for size, took in found.items():
        each = {name: statistics.median(getattr(one, name) for one in took) for name in Cost.__slots__}
        rows.append(
            [
                str(size),
                f"{each['server']:.3f}",
                f"{each['client']:.3f}",
                f"{each['wall']:.2f}",
                f"{each['wal']:,.0f}",
                f"{each['commits']:.2f}",
                f"{each['flushes']:.2f}",
            ]
        )
    head = ["group", "PostgreSQL, CPU ms", "client, CPU ms", "wall, ms", "WAL bytes", "commits", "flushes"]
    return "groups", table(head, rows)


def cost(database: Database, size: int) -> Cost:
    """Of runs in groups of `size`, one group after the other."""
    groups = max(_GROUPS, _RUNS // size)
    for _ in range(_WARM):
        cycle(database, size)
    with psycopg.connect(address(database.url.render_as_string(hide_password=False)), autocommit=True) as watch:
        pid = _settled(database)
        before, server, client, wall = counts(watch), _cpu(pid), time.thread_time(), time.monotonic()
        for _ in range(groups):
            cycle(database, size)
        wall, client, server = time.monotonic() - wall, time.thread_time() - client, _cpu(pid) - server
        _settled(database)
        took = counts(watch) - before
    runs = groups * size
    return Cost(
        server=1000 * server / runs,
        client=1000 * client / runs,
        wall=1000 * wall / runs,
        wal=took.wal / runs,
        commits=took.commits / runs,
        flushes=took.flushes / runs,
    )


def _settled(database: Database) -> int:
    """The process of its one session, which has told its counters."""

    def ask(conn: Any) -> int:
        conn.execute(text("SELECT pg_stat_force_next_flush()"))
        return int(conn.execute(text("SELECT pg_backend_pid()")).scalar_one())

    return database.ask(ask)


def _cpu(pid: int) -> float:
    """Seconds that a process was on a core, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
