"""Table runclaim_findings: the structured results of a phase or a session, kept with the run."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Sealed


class Finding(Base):
    """One thing that a phase, or a session of it, found; written with the phase's completion."""

    __tablename__ = "runclaim_findings"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"))
    phase: Mapped[str] = mapped_column(Text)
    session_id: Mapped[str | None] = mapped_column(Id, ForeignKey("runclaim_sessions.id", ondelete="CASCADE"))
    severity: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Sealed)
    body: Mapped[str | None] = mapped_column(Sealed)
    path: Mapped[str | None] = mapped_column(Sealed)
    #: Counts from 1.
    line: Mapped[int | None] = mapped_column()
    found_at: Mapped[datetime] = mapped_column(Instant)

    __table_args__ = (
        CheckConstraint("line > 0", name="line_from_one"),
        # Serves ledger.body.findings.findings_of and the cascade of ledger.purge.
        Index("ix_runclaim_findings_run_id", "run_id"),
        # Serves the cascade of a deleted session.
        Index("ix_runclaim_findings_session_id", "session_id"),
    )
