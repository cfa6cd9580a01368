"""
`make bench`: rounds of runclaim, bare Celery and others in turn, medians, and the ratios inside each round.

    python -m benchmarks [--rounds 3] [--brokers redis,rabbitmq] [--sides bare,results,runclaim,floor,batches]
                         [--works W1,W2,W3,W4] [--scale 1] [--write]

The machine's speed drifts; a ratio of two neighbours in time drifts less. Quote ratios, with their spread.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import psycopg

from benchmarks.application import Place
from benchmarks.ledgers import migrate, up
from benchmarks.report import Row, tables, write
from benchmarks.sides import SIDES
from benchmarks.works import Works
from runclaim.servers import ServerMissing, valkey
from tests.servers.postgres import database, postgres
from tests.servers.rabbitmq import rabbitmq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.sides import Side

_ROOT: Final = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure, print, and with `--write` renew the page's tables and plot."""
    told = _asked()
    # Whoever ends it ends its workers and servers, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    rows: list[Row] = []
    works = Works(itertools.count(), told.scale)
    with ExitStack() as stack:
        ledger = stack.enter_context(up(postgres(durable=True)))
        print(f"ledger: {ledger.how}, every commit flushed")
        for kind in told.brokers.split(","):
            try:
                broker = valkey() if kind == "redis" else rabbitmq()
            except ServerMissing as missing:
                print(f"{kind} is left out: {missing}")
                continue
            with up(broker), database(ledger.url) as url, _folder() as folder:
                print(f"broker: {broker.how}")
                rows += _measure(kind, Place(broker.url, url, folder, (broker.pid or 0, ledger.pid)), told, works)
    print(tables(rows))
    if told.write:
        write(_ROOT / "docs", rows, rounds=told.rounds)


def _asked() -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="make bench", description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--brokers", default="redis,rabbitmq")
    asked.add_argument("--sides", default=",".join(SIDES), help="which to measure, out of all that are the default")
    asked.add_argument("--works", default="W1,W2,W3,W4")
    asked.add_argument("--scale", type=float, default=1.0, help="times the usual number of runs")
    asked.add_argument("--write", action="store_true", help="renew docs/performance.md and its plot")
    told = asked.parse_args()
    if unknown := set(told.sides.split(",")) - SIDES.keys():
        asked.error(f"no such side: {', '.join(sorted(unknown))}; there are {', '.join(SIDES)}")
    return told


def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="runclaim-bench-")


def _measure(kind: str, place: Place, told: argparse.Namespace, works: Works) -> list[Row]:
    migrate(place.database_url)
    found: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        connection = stack.enter_context(psycopg.connect(place.database_url.replace("+psycopg", ""), autocommit=True))
        sides = [stack.enter_context(SIDES[name](place, connection).up()) for name in told.sides.split(",")]
        for side in sides:
            with side.turn():
                works.warm(side)
        for turn in range(told.rounds):
            for work in told.works.split(","):
                for side in _rotated(sides, turn):
                    with side.turn():
                        figures: dict[str, float] = getattr(works, work.lower())(side)
                    for label, figure in figures.items():
                        found.setdefault(label, {}).setdefault(side.name, []).append(figure)
            print(f"{kind}: round {turn + 1} of {told.rounds}", flush=True)
    return [Row(kind, label, figures) for label, figures in found.items()]


def _rotated(sides: Sequence[Side], turn: int) -> list[Side]:
    """Who begins, and who comes after whom, changes from round to round."""
    order = sides if turn % 2 == 0 else list(reversed(sides))
    first = turn // 2 % len(sides)
    return [*order[first:], *order[:first]]


if __name__ == "__main__":
    main()
