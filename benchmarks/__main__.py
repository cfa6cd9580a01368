"""
`make bench`: rounds of runclaim and bare Celery in turn, medians, and the ratio inside each round.

    python -m benchmarks [--rounds 3] [--brokers redis,rabbitmq] [--works W1,W2,W3,W4] [--scale 1] [--write]

The machine's speed drifts; a ratio of two neighbours in time drifts less. Quote ratios, with their spread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psycopg

from benchmarks.application import Sides
from benchmarks.report import Row, table, write
from benchmarks.works import Side, Works
from runclaim import migrations
from runclaim.servers import ServerMissing, valkey
from tests.servers.postgres import postgres
from tests.servers.rabbitmq import rabbitmq

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parents[1]
_POOL = ["-P", "prefork", "-c", "2"]


def main() -> None:
    """Measure, print, and with `--write` renew the page's table and plot."""
    asked = argparse.ArgumentParser(prog="make bench", description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--brokers", default="redis,rabbitmq")
    asked.add_argument("--works", default="W1,W2,W3,W4")
    asked.add_argument("--scale", type=float, default=1.0, help="times the usual number of runs")
    asked.add_argument("--write", action="store_true", help="renew docs/performance.md and its plot")
    told = asked.parse_args()
    rows: list[Row] = []
    numbers = itertools.count()
    with ExitStack() as stack:
        ledger = stack.enter_context(_up(postgres(durable=True)))
        print(f"ledger: {ledger.how}, every commit flushed")
        for kind in told.brokers.split(","):
            try:
                broker = valkey() if kind == "redis" else rabbitmq()
            except ServerMissing as missing:
                print(f"{kind} is left out: {missing}")
                continue
            with _up(broker):
                print(f"broker: {broker.how}")
                rows += _measure(kind, broker.url, ledger.url, told, numbers, [broker.pid, ledger.pid])
    print(table(rows))
    if told.write:
        write(_ROOT / "docs", rows, rounds=told.rounds)


@contextmanager
def _up(server: Any) -> Iterator[Any]:
    try:
        yield server.start()
    finally:
        server.remove()


def _measure(
    kind: str,
    broker: str,
    database_url: str,
    told: argparse.Namespace,
    numbers: itertools.count[int],
    servers: list[int],
) -> list[Row]:
    found: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="runclaim-bench-")))
        sides = Sides(broker, database_url, folder)
        _migrate(database_url)
        ledger = stack.enter_context(psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True))
        env = os.environ | {
            "RUNCLAIM_BENCH": json.dumps({"broker": broker, "database_url": database_url, "folder": str(folder)})
        }
        both = [
            Side(name, sides, stack.enter_context(_worker(queue, env, folder)), ledger, folder, servers)
            for name, queue in (("bare", "bare"), ("runclaim", "durable"))
        ]
        works = Works(numbers, told.scale)
        for side in both:
            works.warm(side)
        for turn in range(told.rounds):
            for work in told.works.split(","):
                # Who begins changes from round to round.
                for side in both if turn % 2 == 0 else reversed(both):
                    for label, figure in getattr(works, work.lower())(side).items():
                        found.setdefault(label, {}).setdefault(side.name, []).append(figure)
            print(f"{kind}: round {turn + 1} of {told.rounds}", flush=True)
    return [Row(kind, label, figures["bare"], figures["runclaim"]) for label, figures in found.items()]


def _migrate(database_url: str) -> None:
    from datetime import timedelta

    from runclaim.database import Database

    database = Database(database_url, patience=timedelta(seconds=10))
    migrations.upgrade(database)
    database.close()


@contextmanager
def _worker(queue: str, env: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "benchmarks.application",
        "worker",
        "-Q",
        queue,
        "-n",
        f"{queue}@bench",
    ]
    with (folder / f"{queue}.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "-l", "WARNING", *_POOL], cwd=_ROOT, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
        if os.environ.get("RUNCLAIM_BENCH_LOGS"):
            print((folder / f"{queue}.log").read_text())


if __name__ == "__main__":
    main()
