"""Table runclaim_pauses: what a person has stopped from starting."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant


class Pause(Base):
    """Runs of this scope do not start until it ends; those that run go on."""

    __tablename__ = "runclaim_pauses"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    #: `flow`, `queue`, `key` or `all`.
    scope: Mapped[str] = mapped_column(Text, primary_key=True)
    #: Which one of these; empty for all.
    target: Mapped[str] = mapped_column(Text, primary_key=True)
    paused_at: Mapped[datetime] = mapped_column(Instant)
    until: Mapped[datetime | None] = mapped_column(Instant)
    paused_by: Mapped[str] = mapped_column(Text)
    note: Mapped[str | None] = mapped_column(Text)
