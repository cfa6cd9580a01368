"""Table runclaim_tokens: who may use the HTTP API, for what, in which projects."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations
from typing import Any

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column

from runclaim.models.base import Base
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Json


class Token(Base):
    """A bearer token. Its text was shown once and is not here."""

    __tablename__ = "runclaim_tokens"

    #: The part of the token that names it; no secret.
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    #: SHA-256 of the secret part, 64 hex digits. It has 256 random bits, so no slower hash is needed.
    secret_hash: Mapped[str] = mapped_column(Text)
    scopes: Mapped[Any] = mapped_column(Json, nullable=False)
    projects: Mapped[Any] = mapped_column(Json, nullable=False)
    created_at: Mapped[datetime] = mapped_column(Instant)
    expires_at: Mapped[datetime | None] = mapped_column(Instant)
    #: To the minute.
    last_used_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)
