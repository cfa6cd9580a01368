"""Table runclaim_schema: which scripts made these tables, and which releases may still work on them."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant


class SchemaRevision(Base):
    """One script that was applied; made by `runclaim db upgrade`."""

    __tablename__ = "runclaim_schema"

    revision: Mapped[str] = mapped_column(Text, primary_key=True)
    #: The oldest revision whose releases can work on the tables as this script leaves them.
    runs_with: Mapped[str] = mapped_column(Text)
    applied_at: Mapped[datetime] = mapped_column(Instant)
