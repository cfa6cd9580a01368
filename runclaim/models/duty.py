"""Table runclaim_duties: what has to be done now and then by any one process."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant


class Duty(Base):
    """A duty of the upkeep; the process that moves `due_at` on does it."""

    __tablename__ = "runclaim_duties"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    due_at: Mapped[datetime] = mapped_column(Instant)
    taken_at: Mapped[datetime | None] = mapped_column(Instant)
    done_at: Mapped[datetime | None] = mapped_column(Instant)
    worker: Mapped[str | None] = mapped_column(Text)
