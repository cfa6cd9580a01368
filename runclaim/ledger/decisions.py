"""
Decisions: what people see of actions, and what they decide of those that ended without being posted.

`retry` sends one again, whatever became of it before; `resolve` says what became of one that is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, bindparam, false, null, or_, select, update

from runclaim.clock import now
from runclaim.ledger.outbox import ActionState, lock_runs
from runclaim.ledger.planning import action_state, count_pending
from runclaim.models import actions
from runclaim.rowset import Id, Json

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class ActionView:
    """An action as its users see it."""

    id: str
    run_id: str
    phase: str
    name: str
    kind: str
    payload: Any
    finding_id: str | None
    idempotency_key: str
    state: str
    attempts: int
    uncertain: bool
    superseded: bool
    upstream_id: str | None
    error: dict[str, Any] | None
    planned_at: datetime
    attempted_at: datetime | None
    ended_at: datetime | None


_VIEW: Final = [actions.c[name] for name in ActionView.__slots__]
_its_id: Final = bindparam("its_id", type_=Id())
_its_state: Final = bindparam("its_state", type_=Text())
_OF_RUN: Final = select(*_VIEW).where(actions.c.run_id == _its_id).order_by(actions.c.id)
_LIST: Final = (
    select(*_VIEW)
    .where(or_(_its_state.is_(None), actions.c.state == _its_state))
    .order_by(actions.c.id.desc())
    .limit(bindparam("at_most"))
)
_ONE: Final = select(*_VIEW).where(actions.c.id == _its_id)
_as_seen: Final = and_(actions.c.id == _its_id, actions.c.fence == bindparam("seen_fence"))
_WHERE: Final = select(actions.c.run_id, actions.c.state, actions.c.fence).where(actions.c.id == _its_id)
_RETRY: Final = (
    update(actions)
    .where(_as_seen, actions.c.state.in_([action_state("failed"), action_state("unknown")]), ~actions.c.superseded)
    .values(
        state=action_state("planned"),
        fence=actions.c.fence + 1,
        attempts=0,
        uncertain=false(),
        available_at=now(),
        error=null(),
        ended_at=null(),
    )
    .returning(actions.c.id)
)
_RESOLVE: Final = (
    update(actions)
    .where(_as_seen, actions.c.state == action_state("unknown"))
    .values(
        state=_its_state,
        fence=actions.c.fence + 1,
        uncertain=false(),
        upstream_id=bindparam("its_upstream_id"),
        error=bindparam("its_error", type_=Json()),
        ended_at=now(),
    )
    .returning(actions.c.id)
)


def actions_of(conn: Connection, run_id: str) -> list[ActionView]:
    """The run's actions in the order in which they were planned."""
    return [ActionView(**row._asdict()) for row in conn.execute(_OF_RUN, {"its_id": run_id})]


def list_actions(conn: Connection, *, state: ActionState | None = None, limit: int = 50) -> list[ActionView]:
    """At most `limit` actions, the newest first; those of one state. Reads the table: for people, not for loops."""
    return [ActionView(**row._asdict()) for row in conn.execute(_LIST, {"its_state": state, "at_most": limit})]


def action(conn: Connection, action_id: str) -> ActionView | None:
    """One action, or `None` when there is none."""
    row = conn.execute(_ONE, {"its_id": action_id}).one_or_none()
    return None if row is None else ActionView(**row._asdict())


def retry_action(conn: Connection, action_id: str) -> bool:
    """
    Send an action again that failed or is unknown, under its same key; it is due at once.

    Returns: whether it was one of these, and not superseded. The caller owns the transaction.
    """
    if (seen := conn.execute(_WHERE, {"its_id": action_id}).one_or_none()) is None:
        return False
    lock_runs(conn, {seen.run_id})
    if conn.execute(_RETRY, {"its_id": action_id, "seen_fence": seen.fence}).one_or_none() is None:
        return False
    if seen.state == ActionState.FAILED:
        count_pending(conn, {seen.run_id: 1})
    return True


def resolve_action(conn: Connection, action_id: str, *, upstream_id: str | None, by: str = "") -> bool:
    """
    Say what became of an unknown action: posted as `upstream_id`, or never, with `None`.

    Returns: whether it was unknown. The caller owns the transaction.
    """
    if (seen := conn.execute(_WHERE, {"its_id": action_id}).one_or_none()) is None:
        return False
    lock_runs(conn, {seen.run_id})
    values = {
        "its_id": action_id,
        "seen_fence": seen.fence,
        "its_state": ActionState.FAILED if upstream_id is None else ActionState.POSTED,
        "its_upstream_id": upstream_id,
        "its_error": {"type": "Resolved", "message": f"resolved by {by or 'a person'}"},
    }
    if conn.execute(_RESOLVE, values).one_or_none() is None:
        return False
    count_pending(conn, {seen.run_id: -1})
    return True
