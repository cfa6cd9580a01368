"""The tables of the ledger, one per module. The verbs use the plain tables; no ORM is on the way of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from runclaim.models.act import Act
from runclaim.models.action import Action
from runclaim.models.answer import Answer
from runclaim.models.base import Base
from runclaim.models.bulk import Bulk
from runclaim.models.counter import Counter
from runclaim.models.dedup_key import DedupKey
from runclaim.models.duty import Duty
from runclaim.models.event import Event
from runclaim.models.finding import Finding
from runclaim.models.item_map import ItemMap
from runclaim.models.join import Join
from runclaim.models.limit import Limit
from runclaim.models.listener import Listener, Untold
from runclaim.models.pause import Pause
from runclaim.models.phase_result import PhaseResult
from runclaim.models.registered_flow import RegisteredFlow
from runclaim.models.release import Release
from runclaim.models.run import Run
from runclaim.models.run_key import RunKey
from runclaim.models.schedule import Schedule
from runclaim.models.schema_revision import SchemaRevision
from runclaim.models.session import NamedSession, Session
from runclaim.models.signal import Signal
from runclaim.models.signing_key import SigningKey
from runclaim.models.subject import Subject
from runclaim.models.token import Token

if TYPE_CHECKING:
    from sqlalchemy import Table

metadata: Final = Base.metadata
actions: Final = cast("Table", Action.__table__)
acts: Final = cast("Table", Act.__table__)
answers: Final = cast("Table", Answer.__table__)
bulk: Final = cast("Table", Bulk.__table__)
counters: Final = cast("Table", Counter.__table__)
dedup_keys: Final = cast("Table", DedupKey.__table__)
events: Final = cast("Table", Event.__table__)
findings: Final = cast("Table", Finding.__table__)
listeners: Final = cast("Table", Listener.__table__)
named_sessions: Final = cast("Table", NamedSession.__table__)
flows: Final = cast("Table", RegisteredFlow.__table__)
phase_results: Final = cast("Table", PhaseResult.__table__)
run_keys: Final = cast("Table", RunKey.__table__)
runs: Final = cast("Table", Run.__table__)
sessions: Final = cast("Table", Session.__table__)
signals: Final = cast("Table", Signal.__table__)
signing_keys: Final = cast("Table", SigningKey.__table__)
subjects: Final = cast("Table", Subject.__table__)
duties: Final = cast("Table", Duty.__table__)
joins: Final = cast("Table", Join.__table__)
limits: Final = cast("Table", Limit.__table__)
maps: Final = cast("Table", ItemMap.__table__)
pauses: Final = cast("Table", Pause.__table__)
releases: Final = cast("Table", Release.__table__)
schedules: Final = cast("Table", Schedule.__table__)
schema: Final = cast("Table", SchemaRevision.__table__)
tokens: Final = cast("Table", Token.__table__)
untold: Final = cast("Table", Untold.__table__)

__all__ = [
    "actions",
    "acts",
    "answers",
    "bulk",
    "counters",
    "dedup_keys",
    "duties",
    "events",
    "findings",
    "flows",
    "joins",
    "limits",
    "listeners",
    "maps",
    "metadata",
    "named_sessions",
    "pauses",
    "phase_results",
    "releases",
    "run_keys",
    "runs",
    "schedules",
    "schema",
    "sessions",
    "signals",
    "signing_keys",
    "subjects",
    "tokens",
    "untold",
]
