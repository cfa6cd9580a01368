"""Table runclaim_maps: the items of a mapped phase that are not runs yet."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json


class ItemMap(Base):
    """Very many items are turned into runs page by page; this says how far that is."""

    __tablename__ = "runclaim_maps"

    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[str] = mapped_column(Text, primary_key=True)
    page: Mapped[int] = mapped_column(primary_key=True)
    items: Mapped[Any] = mapped_column(Json, nullable=False)
    made_at: Mapped[datetime | None] = mapped_column(Instant)
