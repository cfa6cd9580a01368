"""A run that is requested from outside the application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """`key` and `subject` are for flows whose application makes them by a function; `None` is as if not given."""

    flow: str
    input: dict[str, Any]
    project: str | None = None
    key: str | None = None
    subject: str | None = None
    delay: timedelta | None = None
    priority: int | None = None
