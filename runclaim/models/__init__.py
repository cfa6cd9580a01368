"""The tables of the ledger, one a module. The verbs use the plain tables; no ORM stands on the way of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from runclaim.models.base import Base
from runclaim.models.counter import Counter
from runclaim.models.dedup_key import DedupKey
from runclaim.models.event import Event
from runclaim.models.phase_result import PhaseResult
from runclaim.models.run import Run
from runclaim.models.run_key import RunKey
from runclaim.models.subject import Subject

if TYPE_CHECKING:
    from sqlalchemy import Table

metadata: Final = Base.metadata
counters: Final = cast("Table", Counter.__table__)
dedup_keys: Final = cast("Table", DedupKey.__table__)
events: Final = cast("Table", Event.__table__)
phase_results: Final = cast("Table", PhaseResult.__table__)
run_keys: Final = cast("Table", RunKey.__table__)
runs: Final = cast("Table", Run.__table__)
subjects: Final = cast("Table", Subject.__table__)

__all__ = ["counters", "dedup_keys", "events", "metadata", "phase_results", "run_keys", "runs", "subjects"]
