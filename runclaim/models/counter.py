"""Table runclaim_counters: totals that no purge lowers."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base


class Counter(Base):
    """A running total, such as the duplicates refused by a flow; added to in the background."""

    __tablename__ = "runclaim_counters"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    flow: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
