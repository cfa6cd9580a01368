"""What only some runs have: each column is null for the others, and each index leaves them out."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any, Final

from sqlalchemy import BigInteger, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.sql.clock import Instant, now
from runclaim.sql.rowset import Id, Json, Sealed


class RunFeatures:
    """Columns of runclaim_runs that a run has by what its flow declares, or by how it was made."""

    #: Where the output of the last phase that named one lies: a URL of any scheme.
    output_ref: Mapped[str | None] = mapped_column(Sealed)
    #: When the run was last changed; a lease that is extended and a message that is sent again change nothing.
    updated_at: Mapped[datetime | None] = mapped_column(Instant, onupdate=now())
    #: When the current claim was made, or the last one.
    claimed_at: Mapped[datetime | None] = mapped_column(Instant)
    #: The delivery of a webhook that made the run, as its sender numbers them, and the action that it told of.
    delivery_id: Mapped[str | None] = mapped_column(Text)
    delivery_action: Mapped[str | None] = mapped_column(Text)
    #: The release of the application whose process claimed it last.
    release: Mapped[str | None] = mapped_column(Text)
    #: The run and the phase that this run is a part of, and which part.
    parent_id: Mapped[str | None] = mapped_column(Id)
    parent_phase: Mapped[str | None] = mapped_column(Text)
    item: Mapped[str | None] = mapped_column(Text)
    #: The limits that it counts against while it runs, and its place in each.
    limit_key: Mapped[str | None] = mapped_column(Text)
    slot: Mapped[int | None] = mapped_column()
    second_limit_key: Mapped[str | None] = mapped_column(Text)
    second_slot: Mapped[int | None] = mapped_column()
    #: Since when it has waited for a place.
    parked_at: Mapped[datetime | None] = mapped_column(Instant)
    #: Until when its phase waits for a signal, and what happens then.
    wait_until: Mapped[datetime | None] = mapped_column(Instant)
    wait_else: Mapped[str | None] = mapped_column(Text)
    #: When it is too late to start, and when it is too late to go on.
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    run_deadline_at: Mapped[datetime | None] = mapped_column(Instant)
    #: The earliest of these instants that is still to come.
    timer_at: Mapped[datetime | None] = mapped_column(Instant)
    #: The version of its subject that the run is about: a number that only grows.
    subject_version: Mapped[int | None] = mapped_column(BigInteger)
    tags: Mapped[Any] = mapped_column(Json, nullable=True)
    #: How far its body says that it is.
    progress: Mapped[Any] = mapped_column(Json, nullable=True)
    #: The same for errors that have the same cause: their type, and where they were raised.
    error_signature: Mapped[str | None] = mapped_column(Text)


def _partial(name: str, *columns: str, where: str, **options: Any) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where), **options)


#: Each names what it serves; a run that has none of these is in none of them.
FEATURE_INDEXES: Final = (
    # The places of a limit: two runs never have the same one.
    _partial(
        "uq_runclaim_runs_slot",
        "limit_key",
        "slot",
        where="state = 'running' AND limit_key IS NOT NULL",
        unique=True,
    ),
    _partial(
        "uq_runclaim_runs_second_slot",
        "second_limit_key",
        "second_slot",
        where="state = 'running' AND second_limit_key IS NOT NULL",
        unique=True,
    ),
    # The lines of those that wait for a place, the first in front.
    _partial("ix_runclaim_runs_parked", "limit_key", "priority", "parked_at", where="parked_at IS NOT NULL"),
    # The parts of a run, by their state.
    _partial("ix_runclaim_runs_parent", "parent_id", "parent_phase", "state", where="parent_id IS NOT NULL"),
    # Whatever ends a wait, a run that is not started, or one that takes too long.
    _partial("ix_runclaim_runs_timer_at", "timer_at", where="timer_at IS NOT NULL AND finished_at IS NULL"),
    # Serves ledger.purge, which ends a subject's row with its last run, and the erasing of a subject.
    _partial(
        "ix_runclaim_runs_ended_of_subject",
        "project",
        "flow",
        "subject",
        where="finished_at IS NOT NULL AND subject IS NOT NULL",
    ),
    # Failures that have one cause.
    _partial(
        "ix_runclaim_runs_error_signature",
        "project",
        "error_signature",
        "finished_at",
        where="error_signature IS NOT NULL",
    ),
)
