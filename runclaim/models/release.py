"""Table runclaim_releases: what each release of each application said of its flows, and when it was last there."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Json


class Release(Base):
    """A flow as one release declares it. Several are alive while a deploy is under way."""

    __tablename__ = "runclaim_releases"

    project: Mapped[str] = mapped_column(Text, primary_key=True)
    flow: Mapped[str] = mapped_column(Text, primary_key=True)
    #: The application's own name for it, or else the beginning of `fingerprint`.
    release: Mapped[str] = mapped_column(Text, primary_key=True)
    #: As in runclaim_flows.
    declared: Mapped[Any] = mapped_column(Json, nullable=False)
    #: SHA-256 of that.
    fingerprint: Mapped[str] = mapped_column(Text)
    first_seen_at: Mapped[datetime] = mapped_column(Instant)
    last_seen_at: Mapped[datetime] = mapped_column(Instant)
