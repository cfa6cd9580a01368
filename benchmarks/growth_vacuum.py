"""What autovacuum needs: dead rows, their weight on the verbs, and how long it takes to have them away."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.growth_timing import timed
from benchmarks.growth_verbs import VERBS
from runclaim.keys import nonce
from runclaim.ledger.claim import ClaimRequest
from runclaim.ledger.complete import complete
from runclaim.ledger.heartbeat import heartbeat
from tests.ledger import factories

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from benchmarks.growth_live import Ledger
    from runclaim.ledger.fence import Claim

#: Updates of live rows after which the verbs are timed, each beside those before.
CHURN: Final = (100_000, 900_000)
_AT_ONCE: Final = 100
_REPETITIONS: Final = 40
_HEARTBEATS: Final = 200
_UPDATES_A_RUN: Final = 4
_PROBED: Final = (
    "claim", "complete, claiming the next phase", "dispatch 100", "rescue 50", "list", "list the failed", "gauges",
    "purge where nothing is due",
)  # fmt: skip
_STATS: Final = """
    SELECT relname, n_live_tup, n_dead_tup, n_tup_upd, n_tup_hot_upd, pg_table_size(relid), pg_indexes_size(relid)
    FROM pg_stat_user_tables WHERE relname IN ('runclaim_runs', 'runclaim_phase_results', 'runclaim_events')
    ORDER BY relname DESC"""


@dataclass(frozen=True, slots=True)
class Table:
    """What the statistics say of a table; sizes in bytes."""

    name: str
    live: int
    dead: int
    updates: int
    hot: int
    size: int
    indexes: int


@dataclass(slots=True)
class Vacuum:
    """All that was found."""

    purged: list[Table]
    #: table → seconds of its VACUUM at autovacuum's own pace.
    after_purge: dict[str, float]
    #: What was done → verb → its median.
    probes: dict[str, dict[str, float]]
    #: What was done → the table of runs.
    runs: dict[str, Table]
    after_churn: float = 0.0


def vacuumed(ledger: Ledger, *, say: Callable[[str], None]) -> Vacuum:
    """Measure on a ledger of which a tenth has just been purged and nothing vacuumed."""
    found = Vacuum(_tables(ledger), {}, {}, {})
    _probe(found, ledger, "a tenth purged", say)
    for table in found.purged:
        found.after_purge[table.name] = _vacuum(ledger, table.name)
        say(f"vacuum of {table.name}: {found.after_purge[table.name]:.1f} s")
    _probe(found, ledger, "vacuumed", say)
    _beat(ledger)
    _probe(found, ledger, f"{_HEARTBEATS * _AT_ONCE:,} heartbeats", say)
    total = 0
    for many in CHURN:
        _churn(ledger, many)
        total += many
        _probe(found, ledger, f"{total:,} more updates", say)
    found.after_churn = _vacuum(ledger, "runclaim_runs")
    _probe(found, ledger, "vacuumed again", say)
    return found


def _probe(found: Vacuum, ledger: Ledger, when: str, say: Callable[[str], None]) -> None:
    found.runs[when] = next(each for each in _tables(ledger) if each.name == "runclaim_runs")
    found.probes[when] = _probed(ledger, say)
    say(f"{when}: {found.runs[when].dead:,} dead rows of runs")


def _probed(ledger: Ledger, say: Callable[[str], None]) -> dict[str, float]:
    verbs = [each for each in VERBS if each.name in _PROBED]
    times = timed([ledger], verbs, repetitions=_REPETITIONS, say=say)
    return {name: statistics.median(took[0]) for name, took in times.items()}


def _tables(ledger: Ledger) -> list[Table]:
    with ledger.database.engine.connect() as conn:
        # A backend tells its counts when it is told to, or has had nothing to do for a while.
        conn.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        conn.commit()
        return [Table(*row) for row in conn.exec_driver_sql(_STATS)]


def _vacuum(ledger: Ledger, table: str) -> float:
    with ledger.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("SET vacuum_cost_delay = '2ms'")
        began = time.monotonic()
        conn.exec_driver_sql(f"VACUUM (ANALYZE) {table}")
        took = time.monotonic() - began
        conn.exec_driver_sql("RESET vacuum_cost_delay")
        return took


def _beat(ledger: Ledger) -> None:
    for _ in range(_HEARTBEATS):
        claims = [(each, factories.LEASE * 100_000) for each in ledger.chance.sample(ledger.running, _AT_ONCE)]
        ledger.database.run(lambda conn: heartbeat(conn, claims))  # noqa: B023 - called at once


def _churn(ledger: Ledger, updates: int) -> None:
    """So many updates of live rows: runs that are enqueued, claimed and completed phase by phase."""
    for _ in range(updates // (_UPDATES_A_RUN * _AT_ONCE)):
        claims = ledger.database.run(_claimed)
        while claims:
            claims = ledger.database.run(lambda conn: _completed(conn, claims))  # noqa: B023 - called at once


def _claimed(conn: Connection) -> list[Claim]:
    made = factories.queued_runs(conn, _AT_ONCE)
    return factories.take_all(conn, [ClaimRequest(run_id, 0, nonce()) for run_id in made])


def _completed(conn: Connection, claims: list[Claim]) -> list[Claim]:
    moved = complete(conn, [factories.completion(each) for each in claims])
    return [each.claim for each in moved.values() if each.claim is not None]
