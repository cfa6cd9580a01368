"""Table runclaim_acts: calls that a body made through `ctx.act`, whose answers it needs at every attempt."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Verbatim


class Act(Base):
    """One call out of a body: written before it is made, and once more with its answer."""

    __tablename__ = "runclaim_acts"

    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"), primary_key=True)
    phase: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    answer: Mapped[Any] = mapped_column(Verbatim, nullable=True)
    #: A person has resumed the run: without a lookup it is called once more. With one, the doubt remains.
    released: Mapped[bool] = mapped_column(server_default=false())
    attempted_at: Mapped[datetime] = mapped_column(Instant)
    answered_at: Mapped[datetime | None] = mapped_column(Instant)

    __table_args__ = (
        CheckConstraint("state IN ('sending', 'posted')", name="state_known"),
        CheckConstraint("(state = 'posted') = (answered_at IS NOT NULL)", name="answered_iff_posted"),
    )
