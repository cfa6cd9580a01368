"""
`make slots`: one worker and two, with pools of one to eight processes, on the same broker and ledger in turn.

    python -m benchmarks.slots [--rounds 3] [--pools 1x1,1x2,1x4,1x8,2x1,2x2,2x4] [--scale 1] [--write]

`2x4` is two workers of four slots each. Quote the ratios to one slot of the same round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import psycopg

from benchmarks.ledgers import migrate, up
from benchmarks.pages import SCALING, renew, table
from benchmarks.slots_application import TOLD, WAITS, Slots
from benchmarks.slots_fleet import Fleet
from benchmarks.waits import Waits, address, counts, end_sessions
from runclaim.servers import valkey
from tests.servers.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Runs of three phases for each wait: a few seconds each with eight slots, and more messages than slots.
_MANY: Final = {0: 2400, 5: 600, 20: 240}
_WARM: Final = 60
_HEAD: Final = [
    *("body", "workers x slots", "runs a second", "to the first", "spread", "CPU ms", "commits", "flushes"),
    *("waits: log", "waits: locks", "connections a slot"),
]


@dataclass(frozen=True, slots=True)
class Took:
    """What one drained load took."""

    rate: float
    cpu_ms: float
    commits: float
    flushes: float
    locks: float
    flushing: float
    connections: float
    waited: str


class Bench:
    """The servers and the application that enqueues."""

    def __init__(self, slots: Slots, ledger: Any, broker: Any, folder: Path) -> None:
        self.slots, self.ledger, self.broker, self.folder = slots, ledger, broker, folder
        self.watch = psycopg.connect(address(ledger.url), autocommit=True)
        self._numbers = itertools.count()

    def fleet(self, workers: int, slots: int) -> Fleet:
        """Workers that are up, and leave with the block."""
        told = {"broker": self.broker.url, "database_url": self.ledger.url, "folder": str(self.folder)}
        env = os.environ | {TOLD: json.dumps(told)}
        return Fleet(self.watch, self.folder, workers, slots, env=env, servers=(self.broker.pid, self.ledger.pid))

    def take(self, many: int) -> list[int]:
        """Numbers that no other run has."""
        return list(itertools.islice(self._numbers, many))

    def measured(self, fleet: Fleet, wait: int, many: int) -> Took:
        """Drain `many` runs. Raises: RuntimeError for an effect that is missing or doubled."""
        flow = self.slots.flows[wait]
        before = counts(self.watch)
        # Connections, prepared statements, and what each phase is known to take.
        fleet.drain(flow, self.take(max(_WARM, 4 * fleet.total)))
        middle, cpu = counts(self.watch), fleet.cpu()
        with Waits(self.ledger.url) as waits:
            seconds = fleet.drain(flow, self.take(many))
        cpu, after = fleet.cpu() - cpu, counts(self.watch)
        connections = fleet.connections()
        end_sessions(self.watch)
        whole = counts(self.watch) - before
        commits = (after - middle).commits / many
        return Took(
            rate=many / seconds,
            cpu_ms=1000 * cpu / many,
            commits=commits,
            # Sessions tell their flushes late: of the warm-up and the load together, per commit.
            flushes=commits * whole.flushes / max(1, whole.commits),
            locks=waits.share("Lock:", "LWLock:"),
            flushing=waits.share("IO:WalSync", "IO:WALSync", "LWLock:WALWrite"),
            connections=connections / fleet.total,
            waited=waits.told(),
        )


def main() -> None:
    """Measure, print, and with `--write` renew the page's table."""
    asked = argparse.ArgumentParser(prog="make slots", description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--pools", default="1x1,1x2,1x4,1x8,2x1,2x2,2x4")
    asked.add_argument("--scale", type=float, default=1.0, help="times the usual number of runs")
    asked.add_argument("--write", action="store_true", help="renew docs/scaling.md")
    told = asked.parse_args()
    pools = [tuple(map(int, each.split("x"))) for each in told.pools.split(",")]
    found: dict[tuple[int, tuple[int, ...]], list[Took]] = {}
    with ExitStack() as stack:
        ledger = stack.enter_context(up(postgres(durable=True)))
        broker = stack.enter_context(up(valkey()))
        print(f"ledger: {ledger.how}, every commit flushed; broker: {broker.how}", flush=True)
        migrate(ledger.url)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="runclaim-slots-")))
        bench = Bench(Slots(broker.url, ledger.url, folder), ledger, broker, folder)
        for turn in range(told.rounds):
            # Who begins changes from round to round.
            for pool in pools if turn % 2 == 0 else reversed(pools):
                with bench.fleet(*pool) as fleet:
                    for wait in WAITS:
                        took = bench.measured(fleet, wait, max(1, int(_MANY[wait] * told.scale)))
                        found.setdefault((wait, pool), []).append(took)
                        done = f"round {turn + 1}, {pool}, {wait} ms: {took.rate:,.0f} runs a second"
                        print(f"{done}; {took.waited}", flush=True)
    shown = table(_HEAD, _rows(found, pools))
    print(shown)
    if told.write:
        renew(SCALING, "make slots", f"{shown}\n\nMedians of {told.rounds} interleaved rounds.")


def _rows(
    found: dict[tuple[int, tuple[int, ...]], list[Took]], pools: Sequence[tuple[int, ...]]
) -> Iterator[list[str]]:
    def middle(took: Sequence[Took], name: str) -> float:
        return statistics.median(getattr(each, name) for each in took)

    for wait in WAITS:
        first = found[wait, pools[0]]
        for pool in pools:
            took = found[wait, pool]
            ratios = sorted(each.rate / base.rate for each, base in zip(took, first, strict=True))
            yield [
                f"{wait} ms",
                "x".join(map(str, pool)),
                f"{middle(took, 'rate'):,.0f}",
                f"**{statistics.median(ratios):.2f}**",
                f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
                *(f"{middle(took, name):.2f}" for name in ("cpu_ms", "commits", "flushes")),
                *(f"{middle(took, name):.0%}" for name in ("flushing", "locks")),
                f"{middle(took, 'connections'):.1f}",
            ]


if __name__ == "__main__":
    main()
