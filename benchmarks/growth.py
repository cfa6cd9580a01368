"""
`make growth`: the same verbs on ledgers of ten thousand, a million and five million finished runs, in turn.

    python -m benchmarks.growth [--rows 10000,1000000,5000000] [--database postgresql] [--repetitions 150] [--write]

A verb's median on the largest ledger should be within 1.3 times that on the smallest. Quote ratios.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

from benchmarks.growth_history import History, load
from benchmarks.growth_live import PATIENCE, Ledger
from benchmarks.growth_plans import plans
from benchmarks.growth_purge import purged
from benchmarks.growth_report import Report, table, write
from benchmarks.growth_timing import timed
from benchmarks.growth_vacuum import vacuumed
from benchmarks.growth_verbs import VERBS
from runclaim import migrations
from runclaim.database import Database
from tests import servers
from tests.servers.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

_DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
#: A modest server; autovacuum is off, so that it starts in nobody's turn: what it would do is measured by itself.
_SETTINGS: Final = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "autovacuum": "off",
}

_MOST_ON_SQLITE: Final = 1_000_000


def main() -> None:
    """Measure, print, and with `--write` renew the pages."""
    asked = argparse.ArgumentParser(prog="make growth", description=__doc__)
    asked.add_argument("--rows", default="10000,1000000,5000000")
    asked.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    asked.add_argument("--repetitions", type=int, default=150)
    asked.add_argument("--write", action="store_true", help="renew docs/growth.md and docs/growth-plans.md")
    told = asked.parse_args()
    sizes = sorted(int(each) for each in told.rows.split(","))
    if told.database == "sqlite":
        sizes = [each for each in sizes if each <= _MOST_ON_SQLITE]
    with ExitStack() as stack:
        ledgers = [stack.enter_context(each) for each in _ledgers(told.database, sizes, stack)]
        report = _measured(told.database, ledgers, told.repetitions)
    print(table(report))
    if told.write:
        write(_DOCS, report)


def _say(text: str) -> None:
    """Progress: one moving line on a terminal, a line each elsewhere."""
    clock = time.strftime("%H:%M:%S")
    if sys.stderr.isatty():
        print(f"\r\033[K{clock} {text}", end="", file=sys.stderr, flush=True)
    else:
        print(f"{clock} {text}", file=sys.stderr, flush=True)


def _ledgers(kind: str, sizes: list[int], stack: ExitStack) -> Iterator[Any]:
    """A ledger of each size, on one server or in one folder."""
    if kind == "sqlite":
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="runclaim-growth-")))
        for many in sizes:
            yield _ledger(f"sqlite:///{folder}/{many}.db", many)
        return
    server = postgres(durable=True, settings=_SETTINGS)
    stack.callback(server.remove)
    server.start()
    _say(f"{server.how}, {', '.join(f'{name} = {value}' for name, value in _SETTINGS.items())}")
    for many in sizes:
        yield _ledger(stack.enter_context(servers.database(server.url)), many)


@contextmanager
def _ledger(url: str, many: int) -> Iterator[Ledger]:
    began = time.monotonic()
    database = Database(url, patience=PATIENCE)
    migrations.upgrade(database)
    history = History(many, time.time_ns() // 1000)
    load(database, history, say=_say)
    ledger = Ledger(database, history)
    ledger.populate()
    _say(f"{many:,} runs: analyzing")
    analyze(database)
    _say(f"{many:,} runs: loaded in {time.monotonic() - began:.0f} s")
    yield ledger
    database.close()


def analyze(database: Database) -> None:
    """Leave the ledger as upkeep has left it: no dead rows and fresh statistics; a file as nobody ever analyzes it."""
    if database.url.get_backend_name() == "postgresql":
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.exec_driver_sql("VACUUM (ANALYZE)")
            conn.exec_driver_sql("CHECKPOINT")


def _measured(kind: str, ledgers: list[Ledger], repetitions: int) -> Report:
    report = Report(kind, [each.history.many for each in ledgers])
    with ExitStack() as stack:
        unflushed = [stack.enter_context(_unflushed(each)) for each in ledgers]
        report.times = timed(unflushed, VERBS, repetitions=repetitions, say=_say)
        report.plans = plans(unflushed[-1], VERBS)
        for each in ledgers:
            _say(f"{each.history.many:,} runs: purging a tenth")
            report.purges.append(purged(each))
        if kind == "postgresql":
            report.vacuum = vacuumed(unflushed[-1], say=_say)
    return report


@contextmanager
def _unflushed(ledger: Ledger) -> Iterator[Ledger]:
    """The same whose commits do not wait for the disk: that wait is the same at every size, and hides what differs."""
    database = Database(ledger.database.url.render_as_string(hide_password=False), patience=PATIENCE)
    is_file = database.url.get_backend_name() == "sqlite"

    def prepare(raw: Any, _record: object) -> None:
        with closing(raw.cursor()) as cursor:
            cursor.execute("PRAGMA synchronous = OFF" if is_file else "SET synchronous_commit = off")
        raw.commit()

    event.listen(database.engine, "connect", prepare)
    yield replace(ledger, database=database)
    database.close()


if __name__ == "__main__":
    main()
