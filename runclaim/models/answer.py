"""Table runclaim_answers: what was done under an Idempotency-Key, to be answered again and not done again."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import Index, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json


class Answer(Base):
    """
    One answered request, written in the transaction that did what was asked.

    No input and no result: the body of the answer is made again from the run, so that a small request stores little.
    """

    __tablename__ = "runclaim_answers"

    #: SHA-256 of project, method, path and key.
    key_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    #: SHA-256 of the request's canonical JSON: the same key with another payload is refused.
    fingerprint: Mapped[str] = mapped_column(Text)
    #: No foreign key: the run may be purged before its answer is forgotten.
    run_id: Mapped[str] = mapped_column(Id)
    status: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[Any] = mapped_column(Json, nullable=False)
    #: Whose share it takes; `None` from before there were shares.
    project: Mapped[str | None] = mapped_column(Text)
    #: When it may be forgotten, unless its run has not ended by then.
    expires_at: Mapped[datetime] = mapped_column(Instant)

    __table_args__ = (
        # Serves ledger.doors.idempotency_keys.forget_answers: expired answers, oldest first.
        Index("ix_runclaim_answers_expires_at", "expires_at"),
        # Serves ledger.doors.idempotency_keys.count_answers.
        Index("ix_runclaim_answers_project", "project"),
    )
