"""Tables runclaim_sessions and runclaim_named_sessions: conversations with a provider, inside a run and across runs."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Sealed


class Session(Base):
    """
    One conversation with a provider inside a run, and what came of it.

    Written when it starts, not first with the completion: an attempt after a crash continues what is paid for.
    """

    __tablename__ = "runclaim_sessions"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"))
    phase: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    #: The provider's own identifier, once it is known.
    provider_session_id: Mapped[str | None] = mapped_column(Sealed)
    status: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str | None] = mapped_column(Sealed)
    artifact_path: Mapped[str | None] = mapped_column(Sealed)
    #: How many of its findings block.
    blocking_count: Mapped[int] = mapped_column()
    started_at: Mapped[datetime] = mapped_column(Instant)
    completed_at: Mapped[datetime | None] = mapped_column(Instant)

    __table_args__ = (
        CheckConstraint("status IN ('started', 'completed', 'failed')", name="status_known"),
        CheckConstraint("(status = 'started') = (completed_at IS NULL)", name="completed_iff_ended"),
        CheckConstraint("blocking_count >= 0", name="blocking_count_not_negative"),
        # A second attempt of the phase finds the session of the first. Serves the cascade of ledger.purge too.
        UniqueConstraint("run_id", "phase", "role"),
    )


class NamedSession(Base):
    """A provider's conversation kept under a name, so that the next run can continue it."""

    __tablename__ = "runclaim_named_sessions"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    provider_session_id: Mapped[str] = mapped_column(Sealed)
    #: Rises with every update; an update names the version it has read.
    version: Mapped[int] = mapped_column(BigInteger)
    #: The run that wrote it last; no foreign key, it outlives the run.
    run_id: Mapped[str | None] = mapped_column(Id)
    updated_at: Mapped[datetime] = mapped_column(Instant)
