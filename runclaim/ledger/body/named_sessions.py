"""
Named sessions: a provider's conversation kept under a name, so that the next run can continue it.

Updates are optimistic: the caller that has read version 3 may write version 4, once. A second caller gets an error,
reads again and decides again; no caller waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select, update

from runclaim.ledger.fence import require_held
from runclaim.models import named_sessions, runs
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from runclaim.ledger.fence import Claim


@dataclass(frozen=True, slots=True)
class NamedSessionView:
    """What is kept under a name; `version` is what an update has to name."""

    project: str
    name: str
    provider_session_id: str
    version: int
    run_id: str | None
    updated_at: datetime


# Names are unique in a project, and the project is that of the run.
_project: Final = select(runs.c.project).where(runs.c.id == bindparam("its_run", type_=Id())).scalar_subquery()
_READ: Final = select(named_sessions).where(
    named_sessions.c.project == _project, named_sessions.c.name == bindparam("its_name")
)
_MOVE: Final = (
    update(named_sessions)
    .where(
        named_sessions.c.project == _project,
        named_sessions.c.name == bindparam("its_name"),
        named_sessions.c.version == bindparam("seen_version"),
    )
    .values(
        provider_session_id=bindparam("its_session"),
        version=named_sessions.c.version + 1,
        run_id=bindparam("its_run", type_=Id()),
        updated_at=now(),
    )
    .returning(named_sessions.c.version)
)


def _keep(new: Any) -> Any:
    return (
        new.values(
            project=_project,
            name=bindparam("its_name"),
            provider_session_id=bindparam("its_session"),
            version=1,
            run_id=bindparam("its_run", type_=Id()),
            updated_at=now(),
        )
        .on_conflict_do_nothing(index_elements=["project", "name"])
        .returning(named_sessions.c.version)
    )


_KEEP: Final = upsert(named_sessions, _keep)


def read_named(conn: Connection, run_id: str, name: str) -> NamedSessionView | None:
    """What is kept under the name in the run's project, or `None`."""
    row = conn.execute(_READ, {"its_run": run_id, "its_name": name}).one_or_none()
    return None if row is None else NamedSessionView(**row._asdict())


def keep_named(conn: Connection, claim: Claim, name: str, *, provider_session_id: str, seen: int) -> int | None:
    """
    Keep a provider's session under the name, if its version is still `seen` (0: the name is new).

    Returns: the new version, or `None` when another caller was first. Raises: ClaimLost. The caller owns the
    transaction; doing it again after an ambiguous commit finds its own session under `seen + 1`.
    """
    require_held(conn, claim)
    values = {"its_run": claim.run_id, "its_name": name, "its_session": provider_session_id}
    if seen == 0:
        found: int | None = conn.execute(_KEEP[conn.dialect.name], values).scalar()
    else:
        found = conn.execute(_MOVE, values | {"seen_version": seen}).scalar()
    if found is None and (there := read_named(conn, claim.run_id, name)) is not None:
        ours = (there.version, there.run_id, there.provider_session_id) == (seen + 1, claim.run_id, provider_session_id)
        return there.version if ours else None
    return found
