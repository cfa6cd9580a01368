"""Table runclaim_flows: what each application said of its flows, for doors that do not import applications."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Json


class RegisteredFlow(Base):
    """A flow as the release that came last declares it, for doors that know no releases; see runclaim_releases."""

    __tablename__ = "runclaim_flows"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    #: What `ledger.registry` makes of the declaration: phases, templates, the schema of the input, hooks.
    declared: Mapped[Any] = mapped_column(Json, nullable=False)
    #: SHA-256 of that: a worker that finds its own writes nothing.
    fingerprint: Mapped[str] = mapped_column(Text)
    registered_at: Mapped[datetime] = mapped_column(Instant)
