"""Table runclaim_dedup_keys: payloads of a trigger that were seen a moment ago."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id


class DedupKey(Base):
    """A delivery id or a payload's hash, and until when the same again is dropped."""

    __tablename__ = "runclaim_dedup_keys"

    #: `trigger/delivery` or `trigger/payload`.
    namespace: Mapped[str] = mapped_column(Text, primary_key=True)
    #: SHA-256, 64 hex digits.
    key_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    #: What the first delivery made, for the answer to the second.
    run_id: Mapped[str | None] = mapped_column(Id)
    #: Of the delivery that opened the window, by which its answer is read back.
    nonce: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(Instant)

    __table_args__ = (
        # Serves ledger.doors.dedup_windows.forget: expired keys, oldest first.
        Index("ix_runclaim_dedup_keys_expires_at", "expires_at"),
    )
