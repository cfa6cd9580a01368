"""Table runclaim_signals: outside events that phases wait for, with what they carried."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Verbatim


class Signal(Base):
    """A signal that a run has received. That it has is a column of the run; this is what it said."""

    __tablename__ = "runclaim_signals"

    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    #: The sender's identifier of the event: the same again changes nothing.
    signal_id: Mapped[str] = mapped_column(Text, primary_key=True)
    payload: Mapped[Any] = mapped_column(Verbatim, nullable=False)
    received_at: Mapped[datetime] = mapped_column(Instant)
