"""Table runclaim_events: the append-only journal of what happened to each run."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, Integer, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json


class Event(Base):
    """One thing that happened to a run, written in the transaction that made it happen."""

    __tablename__ = "runclaim_events"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), Identity(always=True), primary_key=True
    )
    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(Text)
    phase: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int | None] = mapped_column()
    #: The run's fence after the transition.
    fence: Mapped[int] = mapped_column(BigInteger)
    data: Mapped[Any] = mapped_column(Json, nullable=True)
    at: Mapped[datetime] = mapped_column(Instant)

    __table_args__ = (
        # Serves ledger.read.events and the cascade of ledger.purge.
        Index("ix_runclaim_events_run_id", "run_id", "id"),
        # A number that was purged never comes back: a listener is past it.
        {"sqlite_autoincrement": True},
    )
