"""
Findings: what a phase, or a session of it, found.

They are written in the completing transaction and never before: a lost claim leaves none. A finding of a session
goes when its session goes; all of them go with their run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, Text, bindparam, insert, select, true

from runclaim.codec import sealed_text
from runclaim.models import findings
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, pack, rowset

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class NewFinding:
    """One thing found; `session_id` is that of a session of the same phase, or `None`. `line` counts from 1."""

    id: str
    run_id: str
    phase: str
    session_id: str | None
    severity: str
    title: str
    body: str | None
    path: str | None
    line: int | None


@dataclass(frozen=True, slots=True)
class FindingView(NewFinding):
    """A recorded finding."""

    found_at: datetime


_COLUMNS: Final = ["id", "run_id", "phase", "session_id", "severity", "title", "body", "path", "line"]
_found: Final = rowset(
    "found",
    id=Id(),
    run_id=Id(),
    phase=Text(),
    session_id=Id(),
    severity=Text(),
    title=Text(),
    body=Text(),
    path=Text(),
    line=Integer(),
)
_ADD: Final = insert(findings).from_select(
    [*_COLUMNS, "found_at"], select(*(_found.c[name] for name in _COLUMNS)).add_columns(now()).where(true())
)
_OF_RUN: Final = select(findings).where(findings.c.run_id == bindparam("its_id", type_=Id())).order_by(findings.c.id)


def add_findings(conn: Connection, new: Collection[NewFinding]) -> None:
    """Record the findings of phases that complete in this transaction. The caller owns it."""
    if new:
        conn.execute(_ADD, {"found": pack(map(_row, new))})


def findings_of(conn: Connection, run_id: str) -> list[FindingView]:
    """The run's findings in the order in which they were made."""
    return [FindingView(**row._asdict()) for row in conn.execute(_OF_RUN, {"its_id": run_id})]


def _row(new: NewFinding) -> dict[str, Any]:
    return asdict(new) | {name: sealed_text(getattr(new, name)) for name in ("title", "body", "path")}
