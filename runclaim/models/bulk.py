"""Table runclaim_bulk: verbs that a worker carries out on all runs of a filter, batch by batch."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json


class Bulk(Base):
    """One such request, and how far it is."""

    __tablename__ = "runclaim_bulk"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project: Mapped[str] = mapped_column(Text)
    verb: Mapped[str] = mapped_column(Text)
    filter: Mapped[Any] = mapped_column(Json, nullable=False)
    state: Mapped[str] = mapped_column(Text)
    #: The last run that was looked at; the next batch begins after it.
    cursor: Mapped[str | None] = mapped_column(Text)
    total: Mapped[int] = mapped_column()
    done: Mapped[int] = mapped_column(server_default="0")
    refused: Mapped[int] = mapped_column(server_default="0")
    requested_by: Mapped[str] = mapped_column(Text)
    requested_at: Mapped[datetime] = mapped_column(Instant)
    updated_at: Mapped[datetime] = mapped_column(Instant)
    finished_at: Mapped[datetime | None] = mapped_column(Instant)

    __table_args__ = (
        # Those that are not done.
        Index(
            "ix_runclaim_bulk_open",
            "requested_at",
            postgresql_where=text("finished_at IS NULL"),
            sqlite_where=text("finished_at IS NULL"),
        ),
    )
