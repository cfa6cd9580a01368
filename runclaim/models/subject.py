"""Table runclaim_subjects: what successive runs are about, and how many there have been."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base


class Subject(Base):
    """The newest generation of a subject. Its row serialises the enqueues of one subject."""

    __tablename__ = "runclaim_subjects"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    flow: Mapped[str] = mapped_column(Text, primary_key=True)
    subject: Mapped[str] = mapped_column(Text, primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger)
    #: The highest version that a run of it was about; `None` where its runs have none.
    version: Mapped[int | None] = mapped_column(BigInteger)
