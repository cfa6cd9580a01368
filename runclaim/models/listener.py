"""Tables runclaim_listeners and runclaim_untold: who is told of events, how far, and what did not get through."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json

_WAITING = text("state = 'waiting'")


class Listener(Base):
    """A receiver, an outgoing webhook, or the totals: its place in the journal, and which process tells it now."""

    __tablename__ = "runclaim_listeners"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    #: The last event that it was told, or that was set aside for it.
    cursor: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str | None] = mapped_column(Text)
    held_until: Mapped[datetime | None] = mapped_column(Instant)
    #: Turns in a row that got nothing through; the next waits until `available_at`.
    failures: Mapped[int] = mapped_column()
    available_at: Mapped[datetime] = mapped_column(Instant)


class Untold(Base):
    """An event that a listener did not take: told again later, and the later events of its run after it."""

    __tablename__ = "runclaim_untold"

    listener: Mapped[str] = mapped_column(Text, primary_key=True)
    event_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column()
    available_at: Mapped[datetime] = mapped_column(Instant)
    error: Mapped[Any] = mapped_column(Json, nullable=True)

    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'given_up')", name="state_known"),
        # Serves ledger.listeners.untold: what is due for a listener.
        Index(
            "ix_runclaim_untold_available_at",
            "listener",
            "available_at",
            postgresql_where=_WAITING,
            sqlite_where=_WAITING,
        ),
        # Serves the order within a run, and the cascade of ledger.purge.
        Index("ix_runclaim_untold_run_id", "run_id", "listener", "event_id"),
    )
