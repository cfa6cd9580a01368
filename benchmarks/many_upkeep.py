"""Beats and keepers: what dispatch, rescue and heartbeats cost where thousands of runs are alive."""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks.growth_live import lapse, make_due
from benchmarks.growth_timing import quantile
from benchmarks.many_groups import _cpu, _settled
from benchmarks.pages import table
from benchmarks.waits import address, counts
from runclaim.database import Database
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.rescue import rescue
from tests.ledger import factories

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PATIENCE: Final = timedelta(seconds=60)
_LIVE, _BATCH, _IDLE = 10_000, 500, 50
_CLAIMS: Final = (1, 2, 5, 10, 20)
_BEATS: Final = 60
_LONG: Final = timedelta(hours=6)


def beats(url: str, *, rounds: int, say: Callable[[str], None]) -> tuple[str, str]:
    """The part's table: passes of the upkeep with 10,000 queued and 10,000 running runs, by one beat and by two."""
    rows = []
    with closing(Database(url, pool_size=3, patience=_PATIENCE)) as database:
        queued = [
            run_id
            for _ in range(_LIVE // _BATCH)
            for run_id in database.run(lambda conn: factories.queued_runs(conn, _BATCH, dispatch_after=_LONG))
        ]
        running = [
            each.run_id
            for _ in range(_LIVE // _BATCH)
            for each in database.run(lambda conn: factories.claimed_runs(conn, _BATCH))
        ]
        verbs: dict[str, Callable[[Any], Sequence[str]]] = {
            "dispatch": lambda conn: [each.run_id for each in factories.due(conn, spacing=_LONG)],
            "rescue": lambda conn: list(rescue(conn, limit=_BATCH)),
        }
        for name, verb in verbs.items():
            took = [_pass(database, verb) for _ in range(_IDLE)]
            say(f"beats: {name}, idle: {statistics.median(took):.2f} ms")
            rows.append([f"{name}, nothing due", "1", *_told(took), "0", ""])
            for many in (1, 2):
                each = [_drained(database, name, verb, queued, running, many, say) for _ in range(rounds)]
                passes = [one for _, found, _ in each for one in found]
                seconds = statistics.median(one for one, _, _ in each)
                rows.append([f"{name}, all due", f"{many}", *_told(passes), f"{each[0][2]:,}", f"{seconds:.2f}"])
    head = ["", "beats at once", "a pass of 500, p50 ms", "p99", "runs, each once", "seconds in all"]
    return "beats", table(head, rows)


def _told(took: Sequence[float]) -> list[str]:
    return [f"{quantile(took, 0.5):.1f}", f"{quantile(took, 0.99):.1f}"]


def _pass(database: Database, verb: Callable[[Any], Sequence[str]]) -> float:
    began = time.perf_counter()
    database.run(verb)
    return 1000 * (time.perf_counter() - began)


def _drained(
    database: Database,
    name: str,
    verb: Callable[[Any], Sequence[str]],
    queued: list[str],
    running: list[str],
    many: int,
    say: Callable[[str], None],
) -> tuple[float, list[float], int]:
    """Seconds, passes and runs of so many beats at once. Raises: AssertionError for a run taken twice or left out."""
    which, prepare = (queued, make_due) if name == "dispatch" else (running, lapse)
    for start in range(0, len(which), 5000):
        database.run(lambda conn, start=start: prepare(conn, which[start : start + 5000]))  # type: ignore[misc]
    took: list[float] = []
    taken: list[str] = []

    def beat() -> None:
        found: Sequence[str] = [""]
        while found:
            began = time.perf_counter()
            found = database.run(verb)
            took.append(1000 * (time.perf_counter() - began))
            taken.extend(found)

    threads = [threading.Thread(target=beat) for _ in range(many)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    if sorted(taken) != sorted(which):
        raise AssertionError(f"{name}: {len(taken)} taken, {len(set(taken))} different, of {len(which)}")
    say(f"beats: {name}, {many} at once: {seconds:.2f} s, {len(took)} passes")
    return seconds, took, len(taken)


def keepers(url: str, *, rounds: int, say: Callable[[str], None]) -> tuple[str, str]:
    """The part's table: one heartbeat of so many claims."""
    found: dict[int, list[tuple[float, ...]]] = {many: [] for many in _CLAIMS}
    with (
        closing(Database(url, pool_size=1, patience=_PATIENCE)) as database,
        psycopg.connect(address(url), autocommit=True) as watch,
    ):
        claims = database.run(lambda conn: factories.claimed_runs(conn, max(_CLAIMS)))
        for turn in range(rounds):
            for many in _CLAIMS if turn % 2 == 0 else reversed(_CLAIMS):
                pairs = [(claim, factories.LEASE) for claim in claims[:many]]
                found[many].append(_beaten(database, watch, pairs))
            say(f"keepers: round {turn + 1} of {rounds}")
    rows = []
    for many, took in found.items():
        server, client, wal, flushes = (statistics.median(each) for each in zip(*took, strict=True))
        rows.append([f"{many}", f"{server:.2f}", f"{client:.2f}", f"{wal:,.0f}", f"{flushes:.1f}"])
    return "keepers", table(["claims", "PostgreSQL, CPU ms a beat", "client, CPU ms", "WAL bytes", "flushes"], rows)


def _beaten(database: Database, watch: psycopg.Connection[Any], pairs: Sequence[Any]) -> tuple[float, ...]:
    pid = _settled(database)
    before, server, client = counts(watch), _cpu(pid), time.thread_time()
    for _ in range(_BEATS):
        if len(database.run(lambda conn: heartbeat(conn, pairs))) != len(pairs):
            raise AssertionError("a claim was lost")
    client, server = time.thread_time() - client, _cpu(pid) - server
    _settled(database)
    took = counts(watch) - before
    return 1000 * server / _BEATS, 1000 * client / _BEATS, took.wal / _BEATS, took.flushes / _BEATS
