"""Table runclaim_actions: calls to the outside world, planned in a phase's completion and sent after it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json, Verbatim

_DUE = text("state IN ('planned', 'sending')")
_UNKNOWN = text("state = 'unknown'")


class Action(Base):
    """One planned call. It exists exactly when its phase completed, and is claimed and fenced by its own row."""

    __tablename__ = "runclaim_actions"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    run_id: Mapped[str] = mapped_column(Id, ForeignKey("runclaim_runs.id", ondelete="CASCADE"))
    phase: Mapped[str] = mapped_column(Text)
    #: What tells the actions of a phase apart: its number, or the name it was planned under.
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    payload: Mapped[Any] = mapped_column(Verbatim, nullable=False)
    finding_id: Mapped[str | None] = mapped_column(Id, ForeignKey("runclaim_findings.id", ondelete="SET NULL"))
    #: The same at every send: `run:phase:name`.
    idempotency_key: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    #: Claims, each of which sends at most once; counted before the send, so a crash cannot hide one.
    attempts: Mapped[int] = mapped_column()
    #: An earlier send may have arrived: nothing is sent again before that is known.
    uncertain: Mapped[bool] = mapped_column()
    #: A person has asked for another send: it needs no lookup, though one is asked where there is one.
    released: Mapped[bool] = mapped_column(server_default=false())
    #: The nonce of the newest decision of a person, by which its answer is read back.
    decision: Mapped[str | None] = mapped_column(Text)
    #: Its run was superseded after it was sent or while it was: it may be looked up and is never sent again.
    superseded: Mapped[bool] = mapped_column()
    #: Goes up by one at every claim and every end of one.
    fence: Mapped[int] = mapped_column(BigInteger)
    owner: Mapped[str | None] = mapped_column(Text)
    #: When it may be claimed: after a back-off, or once a sender that says nothing is given up.
    available_at: Mapped[datetime] = mapped_column(Instant)
    #: What the other side calls it.
    upstream_id: Mapped[str | None] = mapped_column(Text)
    error: Mapped[Any] = mapped_column(Json, nullable=True)
    planned_at: Mapped[datetime] = mapped_column(Instant)
    attempted_at: Mapped[datetime | None] = mapped_column(Instant)
    #: When it was posted, failed, or given up as unknown.
    ended_at: Mapped[datetime | None] = mapped_column(Instant)

    __table_args__ = (
        CheckConstraint("state IN ('planned', 'sending', 'posted', 'failed', 'unknown')", name="state_known"),
        CheckConstraint("(state = 'sending') = (owner IS NOT NULL)", name="owner_iff_sending"),
        CheckConstraint("(state IN ('planned', 'sending')) = (ended_at IS NULL)", name="ended_iff_settled"),
        # One action per name. Serves ledger.actions.decide.actions_of and the cascade of ledger.purge too.
        UniqueConstraint("run_id", "phase", "name"),
        # Serves ledger.actions.claim.claim_actions: what is due to be sent, or whose sender died.
        Index("ix_runclaim_actions_available_at", "available_at", postgresql_where=_DUE, sqlite_where=_DUE),
        # Serves ledger.doors.gauges: what waits for a person.
        Index("ix_runclaim_actions_unknown", "kind", postgresql_where=_UNKNOWN, sqlite_where=_UNKNOWN),
        # Serves the SET NULL of a deleted finding.
        Index("ix_runclaim_actions_finding_id", "finding_id"),
    )
