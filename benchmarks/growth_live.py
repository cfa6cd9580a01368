"""What is alive in a ledger beside its history: the same few thousand rows however long that is."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, update

from runclaim.keys import uuid7
from runclaim.models import run_keys, runs
from tests.ledger import factories

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from benchmarks.growth_history import History
    from runclaim.database import Database
    from runclaim.ledger.fence import Claim

RUNNING, LAPSED, QUEUED, DUE, TOMBSTONES = 2_000, 500, 4_000, 1_000, 5_000
_BATCH: Final = 500
#: A server that loads, or is vacuumed, may keep a statement waiting.
PATIENCE: Final = timedelta(minutes=5)
_LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)
_FAR_AWAY: Final = datetime(2100, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Ledger:
    """A ledger of one size, and what is alive in it."""

    database: Database
    history: History
    running: list[Claim] = field(default_factory=list)
    lapsed: list[str] = field(default_factory=list)
    due: list[str] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - the same rows each time

    def populate(self) -> None:
        """Enqueue and claim what lives beside the history, by the verbs themselves."""
        for _ in range(RUNNING // _BATCH):
            self.running += self.database.run(lambda conn: factories.claimed_runs(conn, _BATCH))
        waiting = [
            run_id
            for _ in range(QUEUED // _BATCH)
            for run_id in self.database.run(lambda conn: factories.queued_runs(conn, _BATCH))
        ]
        self.lapsed, self.due = [each.run_id for each in self.running[:LAPSED]], waiting[:DUE]
        self.running = self.running[LAPSED:]
        self.database.run(lambda conn: lapse(conn, self.lapsed))
        self.database.run(lambda conn: make_due(conn, self.due))
        self.database.run(lambda conn: _stay(conn, self.running, waiting[DUE:]))
        self.database.run(_bury)

    def some(self) -> int:
        """The number of a run that no purge of this benchmark takes."""
        return self.chance.randint(self.history.many // 4, self.history.many)


def lapse(conn: Connection, run_ids: Sequence[str]) -> None:
    """These are running, and their lease has lapsed."""
    conn.execute(
        update(runs)
        .where(runs.c.id.in_(run_ids))
        .values(state="running", owner="gone", worker="gone:1", losses=0, deadline_at=_LONG_AGO)
        .values(lease_expires_at=_LONG_AGO)
    )


def make_due(conn: Connection, run_ids: Sequence[str]) -> None:
    """These were never published, and their message is due."""
    conn.execute(update(runs).where(runs.c.id.in_(run_ids)).values(dispatch_due_at=_LONG_AGO, dispatches=0))


def _stay(conn: Connection, running: Sequence[Claim], waiting: Sequence[str]) -> None:
    """These neither lapse nor become due while the benchmark takes its time."""
    held = update(runs).where(runs.c.id.in_([each.run_id for each in running]))
    conn.execute(held.values(lease_expires_at=_FAR_AWAY, deadline_at=_FAR_AWAY))
    conn.execute(update(runs).where(runs.c.id.in_(waiting)).values(dispatch_due_at=_FAR_AWAY))


def _bury(conn: Connection) -> None:
    """Keys that have expired, of runs that are gone."""
    rows = [
        {"namespace": "default/review", "key_hash": f"{number:064x}", "run_id": uuid7(), "fingerprint": "0" * 64}
        for number in range(TOMBSTONES)
    ]
    conn.execute(insert(run_keys), [row | {"expires_at": _LONG_AGO, "rerun": 0} for row in rows])
