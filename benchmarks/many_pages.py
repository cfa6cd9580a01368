"""Many connections that enqueue, claim and complete as fast as they can: what they wait for, and what grows."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks.growth_timing import quantile
from benchmarks.many_clients import Clients, Load
from benchmarks.pages import table
from benchmarks.waits import Waits, address, counts, end_sessions

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS: Final = 4.0
#: How a commit waits for the disk.
_WAYS: Final = {
    "yes": {"synchronous_commit": "on", "commit_delay": "0"},
    "after 1 ms": {"synchronous_commit": "on", "commit_delay": "1000"},
    "no": {"synchronous_commit": "off", "commit_delay": "0"},
}
#: That, connections, and the size of their groups.
_LOADS: Final = tuple(
    (flushed, connections, group)
    for flushed in _WAYS
    for connections, group in ((1, 1), (8, 1), (32, 1), (64, 1), (8, 20), (32, 20))
)
_UPDATES: Final = """
SELECT n_tup_upd, n_tup_hot_upd, (SELECT deadlocks FROM pg_stat_database WHERE datname = current_database())
FROM pg_stat_user_tables WHERE relname = 'runclaim_runs'
"""
#: No core, no log: what contention of rows and pages would be.
_CONTENTION: Final = ("Lock:", "LWLock:BufferContent", "LWLock:BufferMapping", "LWLock:LockManager", "LWLock:ProcArray")
_LOG: Final = ("IO:WalSync", "IO:WalWrite", "LWLock:WALWrite", "LWLock:WALInsert")


@dataclass(frozen=True, slots=True)
class Took:
    """One load."""

    rate: float
    p50: float
    p99: float
    commits_a_flush: float
    cpu: float
    log: float
    contention: float
    hot: float
    deadlocks: int
    told: str


def measured(url: str, *, rounds: int, say: Callable[[str], None]) -> tuple[str, str]:
    """The name of the part and its table."""
    found: dict[tuple[str, int, int], list[Took]] = {each: [] for each in _LOADS}
    with psycopg.connect(address(url), autocommit=True) as watch:
        for turn in range(rounds):
            for flushed, connections, group in _LOADS if turn % 2 == 0 else reversed(_LOADS):
                # Sessions that begin from here on; without the flush the disk is as fast as one can be.
                for setting, value in _WAYS[flushed].items():
                    watch.execute(f"ALTER DATABASE {watch.info.dbname} SET {setting} = {value}".encode())
                took = _loaded(url, watch, connections, group)
                found[flushed, connections, group].append(took)
                how = f"flush {flushed}, {connections} connections, groups of {group}"
                say(f"pages: {how}: {took.rate:,.0f} runs a second; {took.told}")
    rows = []
    for (flushed, connections, group), took_all in found.items():

        def middle(name: str, took_all: list[Took] = took_all) -> float:
            return statistics.median(getattr(each, name) for each in took_all)

        rows.append(
            [
                flushed,
                f"{connections}",
                f"{group}",
                f"{middle('rate'):,.0f}",
                f"{middle('p50'):.1f}",
                f"{middle('p99'):.1f}",
                f"{middle('commits_a_flush'):.1f}",
                *(f"{middle(name):.0%}" for name in ("log", "cpu", "contention", "hot")),
            ]
        )
    head = ["flushed", "connections", "group", "runs a second", "claim, p50 ms", "p99", "commits a flush"]
    return "pages", table([*head, "wait for the log", "on a core", "wait for rows and pages", "HOT updates"], rows)


def _loaded(url: str, watch: psycopg.Connection[Any], connections: int, group: int) -> Took:
    with Clients(Load(url, connections, _SECONDS, group)) as clients:
        before, updates = counts(watch), watch.execute(_UPDATES).fetchone() or ()
        with Waits(url) as waits:
            done = clients.go()
    end_sessions(watch)
    took = counts(watch) - before
    after = watch.execute(_UPDATES).fetchone() or ()
    changed, hot, deadlocks = (int(now) - int(then) for now, then in zip(after, updates, strict=True))
    return Took(
        rate=done.rate,
        p50=quantile(done.claims, 0.5),
        p99=quantile(done.claims, 0.99),
        commits_a_flush=took.commits / max(1, took.flushes),
        cpu=waits.share("CPU"),
        log=waits.share(*_LOG),
        contention=waits.share(*_CONTENTION),
        hot=hot / max(1, changed),
        deadlocks=deadlocks,
        told=waits.told(7),
    )
