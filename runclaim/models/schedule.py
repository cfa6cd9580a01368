"""Table runclaim_schedules: when runs are to be made, and when the next one is."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Json


class Schedule(Base):
    """A schedule and its next tick, which one conditional UPDATE takes."""

    __tablename__ = "runclaim_schedules"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    flow: Mapped[str] = mapped_column(Text)
    definition: Mapped[Any] = mapped_column(Json, nullable=False)
    #: SHA-256 of the definition: a release that brings the same one changes nothing.
    fingerprint: Mapped[str] = mapped_column(Text)
    #: `None` where no tick is to come.
    next_at: Mapped[datetime | None] = mapped_column(Instant)
    last_at: Mapped[datetime | None] = mapped_column(Instant)
    paused_at: Mapped[datetime | None] = mapped_column(Instant)
    paused_by: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[int] = mapped_column(server_default="0")
    updated_at: Mapped[datetime] = mapped_column(Instant)

    __table_args__ = (
        # The ticks that are due.
        Index(
            "ix_runclaim_schedules_next_at",
            "next_at",
            postgresql_where=text("paused_at IS NULL AND next_at IS NOT NULL"),
            sqlite_where=text("paused_at IS NULL AND next_at IS NOT NULL"),
        ),
    )
