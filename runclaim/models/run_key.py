"""Table runclaim_run_keys: the identity of runs, and their tombstones after purge."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id


class RunKey(Base):
    """Which run a key belongs to. It outlives the run: a late duplicate never starts the work again."""

    __tablename__ = "runclaim_run_keys"

    #: `project/flow`: keys of different flows never meet.
    namespace: Mapped[str] = mapped_column(Text, primary_key=True)
    #: SHA-256 of the key's parts, 64 hex digits.
    key_hash: Mapped[str] = mapped_column(Text, primary_key=True)
    #: No foreign key: the run may be purged before its key.
    run_id: Mapped[str] = mapped_column(Id)
    #: The number of that run among the runs of this key: 0, 1, 2, …
    rerun: Mapped[int] = mapped_column(server_default="0")
    #: When the key may be used again, as the flow that made the run declares it; `None` for never.
    again: Mapped[str | None] = mapped_column(Text)
    #: SHA-256 of the input's canonical JSON: the same key with another input is a conflict.
    fingerprint: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(Instant)

    __table_args__ = (
        # Serves ledger.purge: expired keys, oldest first.
        Index("ix_runclaim_run_keys_expires_at", "expires_at"),
    )
