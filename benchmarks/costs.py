"""
What a statement costs: CPU of the caller and of PostgreSQL, WAL and wait, for a run alone and for runs together.

    python -m benchmarks.costs [--runs 600] [--rounds 5] [--write]

One process and one connection, so that nothing is hidden by another; the median over the rounds. WAL is what the
server's log grew by. Each call is a commit, and waits for one flush of it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from contextlib import closing
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psutil

from benchmarks.pages import PERFORMANCE, renew
from runclaim import migrations
from runclaim.database import Database
from runclaim.flows.messages.publisher import MOST_NAMED
from runclaim.keys import nonce, uuid7
from runclaim.ledger.claim import ClaimRequest
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue, enqueue_at_once
from tests.ledger import factories
from tests.servers.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runclaim.ledger.fence import Claim
    from runclaim.ledger.new_run import NewRun

#: How many runs share a statement.
TOGETHER: Final = (1, 20, 100, 1000)
_HEAD: Final = (
    "| statement | runs together | caller's CPU | PostgreSQL's CPU | wall | WAL |",
    "|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: microseconds of each, and bytes."""

    caller: float
    server: float
    wall: float
    wal: float


class Meter:
    """Measures what is done with one ledger."""

    def __init__(self, database: Database, server_pid: int) -> None:
        self._database, self._server = database, psutil.Process(server_pid)
        self.found: dict[tuple[str, int], list[Cost]] = {}

    def each(self, name: str, together: int, items: Sequence[Any], work: Callable[[Any], Any]) -> list[Any]:
        """Do `work` with each item, which stands for so many runs; returns what it gave."""
        wal, cpu, caller, began = self._wal(), self._cpu(), time.process_time(), time.perf_counter()
        given = [work(item) for item in items]
        wall, caller = time.perf_counter() - began, time.process_time() - caller
        cpu, many = self._cpu() - cpu, len(items) * together
        micro = 1e6 / many
        cost = Cost(caller * micro, cpu * micro, wall * micro, (self._wal() - wal) / many)
        self.found.setdefault((name, together), []).append(cost)
        return given

    def _cpu(self) -> float:
        times = [each.cpu_times() for each in self._server.children(recursive=True)]
        return sum(each.user + each.system for each in times)

    def _wal(self) -> float:
        with self._database.read() as conn:
            return float(conn.exec_driver_sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").scalar_one())


def _round(database: Database, meter: Meter, runs: int) -> None:
    for together in TOGETHER:
        wanted = list(_batches(runs, together))
        if together == 1:
            meter.each("enqueue", 1, wanted, lambda new: database.run(lambda c: enqueue_at_once(c, new), at_once=True))
        else:
            meter.each("enqueue", together, wanted, lambda new: database.run(lambda c: enqueue(c, new)))
        if together > MOST_NAMED:
            continue
        claims = meter.each(
            "claim", together, wanted, lambda new: database.run(lambda c: _claimed(c, new), at_once=True)
        )
        ended = [[factories.completion(each, '{"a": 1}') for each in group] for group in claims]
        moved = meter.each(
            "complete, and claim the next",
            together,
            ended,
            lambda done: database.run(lambda c: complete(c, done), at_once=True),
        )
        last = [[_last(found.claim) for found in group.values()] for group in moved]
        meter.each(
            "complete the last", together, last, lambda done: database.run(lambda c: complete(c, done), at_once=True)
        )


def _batches(runs: int, together: int) -> Iterable[list[NewRun]]:
    for _ in range(max(3, runs // together)):
        yield [factories.new_run(uuid7(), phases=("plan", "build"), input={"number": 1}) for _ in range(together)]


def _claimed(conn: Any, new: Sequence[NewRun]) -> list[Claim]:
    asked = [ClaimRequest(each.run_id, 0, nonce()) for each in new]
    return factories.take_all(conn, asked)


def _last(taken: Claim) -> Any:
    return factories.completion(taken, '{"a": 1}')


def table(found: dict[tuple[str, int], list[Cost]]) -> str:
    """Markdown: medians over the rounds, each for one run."""
    lines = list(_HEAD)
    for (name, together), costs in sorted(found.items(), key=lambda each: (_ORDER.index(each[0][0]), each[0][1])):
        *times, wal = (statistics.median(each) for each in zip(*map(astuple, costs), strict=True))
        shown = " | ".join(f"{each:,.0f} µs" for each in times)
        lines.append(f"| {name} | {together:,} | {shown} | {wal:,.0f} B |")
    return "\n".join(lines)


_ORDER: Final = ("enqueue", "claim", "complete, and claim the next", "complete the last")


def main() -> None:
    """Measure, print, and with `--write` renew the page's table."""
    asked = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=__doc__)
    asked.add_argument("--runs", type=int, default=600)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--write", action="store_true", help=f"renew {PERFORMANCE.name}")
    told = asked.parse_args()
    server = postgres(durable=True).start()
    try:
        with closing(Database(server.url, patience=timedelta(seconds=10))) as database:
            migrations.upgrade(database)
            meter = Meter(database, server.pid)
            _round(database, meter, 60)
            with database.at_once() as conn:
                conn.exec_driver_sql("ANALYZE")
            meter.found.clear()
            for turn in itertools.count(1):
                _round(database, meter, told.runs)
                print(f"round {turn} of {told.rounds}", flush=True)
                if turn >= told.rounds:
                    break
    finally:
        server.remove()
    print(table(meter.found))
    if told.write:
        renew(PERFORMANCE, "costs", table(meter.found))


if __name__ == "__main__":
    main()
