"""A tenth of a ledger purged: half in batches of 500, half as beat does it; how long each batch holds its locks."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from benchmarks.growth_live import PATIENCE
from benchmarks.growth_timing import quantile
from benchmarks.growth_verbs import KEEP
from runclaim.database import Database
from runclaim.flows.upkeep.purge import purge_all
from runclaim.ledger.purge import purge

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.growth_live import Ledger

_FIXED: Final = 500


class Watched(Database):
    """Notes how long each transaction took, from its BEGIN to the answer to its COMMIT."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self.took: list[float] = []

    def run(self, work: Callable[..., Any], **how: Any) -> Any:
        """As it is, timed."""
        began = time.perf_counter()
        answer = super().run(work, **how)
        self.took.append((time.perf_counter() - began) * 1000)
        return answer


@dataclass(frozen=True, slots=True)
class Batches:
    """How long the transactions of a purge took, in milliseconds and in their order, and how many runs went."""

    runs: int
    took: list[float] = field(default_factory=list)

    def told(self) -> str:
        """For people."""
        longest, p99 = max(self.took), quantile(self.took, 0.99)
        tenth = max(1, len(self.took) // 10)
        first, last = statistics.median(self.took[:tenth]), statistics.median(self.took[-tenth:])
        return (
            f"{self.runs:,} in {len(self.took):,} | {statistics.median(self.took):.1f} | {p99:.1f} | {longest:.1f}"
            f" | {first:.1f} to {last:.1f} | {self.runs / sum(self.took) * 1000:,.0f}"
        )


def purged(ledger: Ledger) -> tuple[Batches, Batches]:
    """The batches of fixed size, and those as beat makes them, each over half of what is past its retention."""
    database = Watched(ledger.database.url.render_as_string(hide_password=False), patience=PATIENCE)
    database.run(lambda conn: purge(conn, {}))
    database.took.clear()
    gone = last = 0
    while gone < ledger.history.many // 20 and (not gone or last == _FIXED):
        gone += (last := database.run(lambda conn: purge(conn, KEEP, limit=_FIXED)))
    fixed = Batches(gone, database.took)
    database.took = []
    rest = purge_all(database, KEEP)
    database.close()
    return fixed, Batches(rest, database.took)
