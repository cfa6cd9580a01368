"""Table runclaim_signing_keys: what the doors of one ledger sign with, the same in every process."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant


class SigningKey(Base):
    """256 random bits, created by the process that needs them first."""

    __tablename__ = "runclaim_signing_keys"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text)
    made_at: Mapped[datetime] = mapped_column(Instant)
