"""Table runclaim_runs: the cursor of every run. All guards are columns of this row."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, SmallInteger, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import STORAGE, Base
from runclaim.models.run_features import FEATURE_INDEXES, RunFeatures
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json, Verbatim
from runclaim.states import TERMINAL, RunState

_STALLED = text("state IN ('waiting', 'blocked')")


def _listed(states: list[RunState]) -> str:
    return ", ".join(f"'{state}'" for state in states)


_STORAGE = {
    # Room in each page, so that a heartbeat's new row version stays next to the old one and no index is touched.
    "fillfactor": 80,
    # The dead rows are those of the few live ones: a fifth of a long history is too many of them (docs/growth.md).
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_analyze_scale_factor": 0.02,
}
_LIVE = text("finished_at IS NULL")
_ENDED = text("finished_at IS NOT NULL")


class Run(RunFeatures, Base):
    """One execution of a flow: the cursor through its phases, and who may move it."""

    __tablename__ = "runclaim_runs"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Text)
    flow: Mapped[str] = mapped_column(Text)
    #: The key as people read it; uniqueness lives in runclaim_run_keys, which outlives the run.
    key: Mapped[str] = mapped_column(Text)
    rerun: Mapped[int] = mapped_column(default=0)
    subject: Mapped[str | None] = mapped_column(Text)
    #: The subject's generation this run was enqueued at; 0 without a subject, -1 once its key has a newer run.
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    #: The broker's, 0 to 9; -1 where none was given.
    priority: Mapped[int] = mapped_column(SmallInteger, default=-1)
    input: Mapped[Any] = mapped_column(Verbatim, nullable=False)
    #: The phase names as they were declared when the run was enqueued. A deploy does not change them.
    phases: Mapped[list[str]] = mapped_column(Json, nullable=False)
    #: How many phases are complete.
    cursor: Mapped[int] = mapped_column(default=0)
    #: The phase the cursor points at; the last one when all are complete.
    phase: Mapped[str] = mapped_column(Text)
    queue: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    #: The signal that the phase at the cursor waits for; `None` when it waits for none.
    waits_for: Mapped[str | None] = mapped_column(Text)
    #: The names of the signals that were received, each between bars: `|approved|`.
    signals: Mapped[str] = mapped_column(Text, server_default="")
    #: Goes up by one at every transition and never comes down.
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    #: The nonce of the current claim; with the fence the proof that a claim is current.
    owner: Mapped[str | None] = mapped_column(Text)
    #: `node:pid` of the process that holds the claim.
    worker: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[datetime | None] = mapped_column(Instant)
    deadline_at: Mapped[datetime | None] = mapped_column(Instant)
    #: Starts of the current phase's body, counted when it is claimed, so a crash cannot hide one.
    attempts: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column()
    #: Claims of the current phase that ended without a word: a dead worker, a lapsed lease.
    losses: Mapped[int] = mapped_column(default=0)
    max_losses: Mapped[int] = mapped_column()
    available_at: Mapped[datetime] = mapped_column(Instant)
    #: When the run's message is to be published (again), while it is queued.
    dispatch_due_at: Mapped[datetime] = mapped_column(Instant)
    dispatches: Mapped[int] = mapped_column(default=0)
    cancel_requested_at: Mapped[datetime | None] = mapped_column(Instant)
    #: Actions of this run that still have to reach the outside world; a run with any is not purged.
    pending_actions: Mapped[int] = mapped_column(default=0)
    error: Mapped[Any] = mapped_column(Json, nullable=True)
    trace_context: Mapped[Any] = mapped_column(Json, nullable=True)
    enqueued_at: Mapped[datetime] = mapped_column(Instant)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)
    #: What the application put into the headers of the run's Celery task, in the context of its enqueuer.
    headers: Mapped[Any] = mapped_column(Json, nullable=True)

    __table_args__ = (
        CheckConstraint(f"state IN ({_listed(list(RunState))})", name="state_known"),
        # A lease, a deadline and an owner exist exactly while someone holds the run.
        CheckConstraint("(state = 'running') = (lease_expires_at IS NOT NULL)", name="lease_iff_running"),
        CheckConstraint("(state = 'running') = (deadline_at IS NOT NULL)", name="deadline_iff_running"),
        CheckConstraint("(state = 'running') = (owner IS NOT NULL)", name="owner_iff_running"),
        CheckConstraint(
            f"(state IN ({_listed(sorted(TERMINAL))})) = (finished_at IS NOT NULL)", name="finished_iff_terminal"
        ),
        CheckConstraint("attempts >= 0 AND attempts <= max_attempts", name="attempts_within_budget"),
        CheckConstraint("losses >= 0 AND losses <= max_losses", name="losses_within_budget"),
        CheckConstraint("pending_actions >= 0", name="pending_actions_not_negative"),
        # Serves ledger.rescue: only running rows can lapse. By the deadline, which is set while the claim is: a lease
        # in any index would have each heartbeat write to all of them, and leave as many dead entries.
        Index(
            "ix_runclaim_runs_deadline_at",
            "deadline_at",
            postgresql_where=text("state = 'running'"),
            sqlite_where=text("state = 'running'"),
        ),
        # Serves ledger.dispatch: only queued rows are published.
        Index(
            "ix_runclaim_runs_dispatch_due_at",
            "dispatch_due_at",
            postgresql_where=text("state = 'queued'"),
            sqlite_where=text("state = 'queued'"),
        ),
        # Serves the supersede of ledger.enqueue and the guard of ledger.retry: the live runs of a subject.
        Index(
            "ix_runclaim_runs_subject",
            "project",
            "flow",
            "subject",
            postgresql_where=text("finished_at IS NULL AND subject IS NOT NULL"),
            sqlite_where=text("finished_at IS NULL AND subject IS NOT NULL"),
        ),
        # Serves ledger.purge: finished rows, oldest first.
        Index(
            "ix_runclaim_runs_finished_at",
            "finished_at",
            postgresql_where=_ENDED,
            sqlite_where=_ENDED,
        ),
        # Serves ledger.doors.run_pages and ledger.working: the live runs by time. There are few, and each of their
        # transitions writes to every index that has them, so one has to do for all projects, flows and states. It
        # begins with no column that another statement asks for, so no plan takes it by mistake, and ends with the
        # project, so that the runs of another project are passed over in the index and not read.
        Index("ix_runclaim_runs_live", "enqueued_at", "id", "project", postgresql_where=_LIVE, sqlite_where=_LIVE),
        # Serves ledger.doors.run_pages: the ended runs of a project in one state, by time.
        Index(
            "ix_runclaim_runs_ended",
            "project",
            "state",
            "enqueued_at",
            "id",
            postgresql_where=_ENDED,
            sqlite_where=_ENDED,
        ),
        # Serves ledger.doors.run_pages for one flow.
        Index(
            "ix_runclaim_runs_ended_of_flow",
            "project",
            "flow",
            "state",
            "enqueued_at",
            "id",
            postgresql_where=_ENDED,
            sqlite_where=_ENDED,
        ),
        # Serves ledger.doors.gauges: runs that wait for a signal or for a person.
        Index("ix_runclaim_runs_stalled", "state", "flow", postgresql_where=_STALLED, sqlite_where=_STALLED),
        *FEATURE_INDEXES,
        {"info": {STORAGE: _STORAGE}},
    )
