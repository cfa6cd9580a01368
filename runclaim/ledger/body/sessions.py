"""
Sessions: with whom a phase talks, written while it talks.

A session is of a run, a phase and a role, not of an attempt: who comes after a crash finds what the first one has
started and paid for. Every write holds the run's row by its claim; a lost claim writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, Text, bindparam, case, null, select, update

from runclaim.ledger.fence import require_held
from runclaim.models import sessions
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from runclaim.ledger.fence import Claim


@dataclass(frozen=True, slots=True)
class SessionView:
    """A recorded session. `status` is started, completed or failed."""

    id: str
    run_id: str
    phase: str
    role: str
    provider_session_id: str | None
    status: str
    outcome: str | None
    artifact_path: str | None
    blocking_count: int
    started_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class SessionState:
    """What is to be kept of a session now."""

    status: str
    provider_session_id: str | None
    outcome: str | None
    artifact_path: str | None
    blocking_count: int


_its_place: Final = (
    sessions.c.run_id == bindparam("its_run", type_=Id()),
    sessions.c.phase == bindparam("its_phase"),
    sessions.c.role == bindparam("its_role"),
)
_FIND: Final = select(sessions).where(*_its_place)
_OF_RUN: Final = select(sessions).where(sessions.c.run_id == bindparam("its_id", type_=Id())).order_by(sessions.c.id)
_status: Final = bindparam("its_status", type_=Text())
_NOTE: Final = (
    update(sessions)
    .where(*_its_place)
    .values(
        status=_status,
        provider_session_id=bindparam("its_provider_id"),
        outcome=bindparam("its_outcome"),
        artifact_path=bindparam("its_artifact"),
        blocking_count=bindparam("its_blocking", type_=Integer()),
        completed_at=case((_status == "started", null()), else_=now()),
    )
)


def _open(new: Any) -> Any:
    return new.values(
        id=bindparam("its_id", type_=Id()),
        run_id=bindparam("its_run", type_=Id()),
        phase=bindparam("its_phase"),
        role=bindparam("its_role"),
        status="started",
        blocking_count=0,
        started_at=now(),
    ).on_conflict_do_nothing(index_elements=["run_id", "phase", "role"])


_OPEN: Final = upsert(sessions, _open)


def open_session(conn: Connection, claim: Claim, role: str, *, session_id: str) -> SessionView:
    """
    The session of this phase and role: the one that an earlier attempt has left, or a new one.

    Raises: ClaimLost. The caller owns the transaction.
    """
    require_held(conn, claim)
    place = {"its_run": claim.run_id, "its_phase": claim.phase, "its_role": role}
    conn.execute(_OPEN[conn.dialect.name], place | {"its_id": session_id})
    return SessionView(**conn.execute(_FIND, place).one()._asdict())


def note_session(conn: Connection, claim: Claim, role: str, kept: SessionState) -> None:
    """Keep what is known of a session now. Raises: ClaimLost. The caller owns the transaction."""
    require_held(conn, claim)
    values = {
        "its_run": claim.run_id,
        "its_phase": claim.phase,
        "its_role": role,
        "its_status": kept.status,
        "its_provider_id": kept.provider_session_id,
        "its_outcome": kept.outcome,
        "its_artifact": kept.artifact_path,
        "its_blocking": kept.blocking_count,
    }
    conn.execute(_NOTE, values)


def sessions_of(conn: Connection, run_id: str) -> list[SessionView]:
    """The run's sessions in the order in which they were started."""
    return [SessionView(**row._asdict()) for row in conn.execute(_OF_RUN, {"its_id": run_id})]
