"""Table runclaim_phase_results: what each completed phase of a run gave."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Sealed, Verbatim


class PhaseResult(Base):
    """One completed phase. Its primary key is the second guard against completing a phase twice."""

    __tablename__ = "runclaim_phase_results"

    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[str] = mapped_column(Text, primary_key=True)
    position: Mapped[int] = mapped_column()
    result: Mapped[Any] = mapped_column(Verbatim, nullable=False)
    #: Why the phase had nothing to do, when it was skipped.
    skipped: Mapped[str | None] = mapped_column(Sealed)
    #: The claim that completed it: what an ambiguous commit is read back by.
    fence: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str] = mapped_column(Text)
    worker: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column()
    started_at: Mapped[datetime] = mapped_column(Instant)
    finished_at: Mapped[datetime] = mapped_column(Instant)
    #: Where the phase's output lies, in place of a result or beside it: a URL of any scheme.
    output_ref: Mapped[str | None] = mapped_column(Sealed)
