"""Table runclaim_joins: how many parts of a run are still open, counted where they end."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.rowset import Id


class Join(Base):
    """A part of the count, so that many parts that end at once do not wait for one row."""

    __tablename__ = "runclaim_joins"

    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[str] = mapped_column(Text, primary_key=True)
    shard: Mapped[int] = mapped_column(primary_key=True)
    open: Mapped[int] = mapped_column()
    failed: Mapped[int] = mapped_column(server_default="0")

    __table_args__ = (CheckConstraint("open >= 0 AND failed >= 0", name="counts_not_negative"),)
