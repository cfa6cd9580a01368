"""Table runclaim_limits: how many runs of a limit may run at once, and how fast they may start."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import Double, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant


class Limit(Base):
    """A limit as a person has set it, and the state of its rate."""

    __tablename__ = "runclaim_limits"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    limit_key: Mapped[str] = mapped_column(Text, primary_key=True)
    at_most: Mapped[int | None] = mapped_column()
    #: A rate as the generic cell rate algorithm keeps it: seconds between two starts, how many may come at once,
    #: and the instant from which the next one is in time.
    rate_seconds: Mapped[float | None] = mapped_column(Double)
    rate_burst: Mapped[int | None] = mapped_column()
    next_at: Mapped[datetime | None] = mapped_column(Instant)
    set_by: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(Instant)
