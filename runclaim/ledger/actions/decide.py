"""
Decisions: what people see of actions, and what they decide of those that ended without being posted.

`retry` sends one again, whatever became of it before; `resolve` says what became of one that is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, bindparam, false, null, select, true, update

from runclaim.ledger.actions.plan import action_state, count_pending
from runclaim.ledger.actions.settle import ActionState, lock_runs
from runclaim.models import actions, runs
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, Json

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

    @property
    def not_retried(self) -> str:
        """Why `retry_action` leaves it alone, for people."""
        why = "its run was superseded or erased" if self.superseded else "only a failed or unknown one can be"
        return f"cannot retry action {self.id}: it is {self.state} ({why})"

    @property
    def not_resolved(self) -> str:
        """Why `resolve_action` leaves it alone, for people."""
        return f"cannot resolve action {self.id}: it is {self.state} (only an unknown one can be)"


_VIEW: Final = [actions.c[name] for name in ActionView.__slots__]
_its_id: Final = bindparam("its_id", type_=Id())
_its_state: Final = bindparam("its_state", type_=Text())
_OF_RUN: Final = select(*_VIEW).where(actions.c.run_id == _its_id).order_by(actions.c.id)
_NEWEST: Final = (
    select(*_VIEW)
    .where(actions.c.id < bindparam("after_id", type_=Id()))
    .order_by(actions.c.id.desc())
    .limit(bindparam("at_most"))
)
#: No id comes after it.
_LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"
# Looked up action by action: of a join the database might read the runs of the project first.
_project: Final = select(runs.c.project).where(runs.c.id == actions.c.run_id).scalar_subquery()
_ONE: Final = select(*_VIEW).where(actions.c.id == _its_id)
_as_seen: Final = and_(actions.c.id == _its_id, actions.c.fence == bindparam("seen_fence"))
_DECIDED: Final = select(actions.c.id).where(actions.c.id == _its_id, actions.c.decision == bindparam("its_decision"))
_WHERE: Final = select(actions.c.run_id, actions.c.state, actions.c.fence).where(actions.c.id == _its_id)
_RETRY: Final = (
    update(actions)
    .where(_as_seen, actions.c.state.in_([action_state("failed"), action_state("unknown")]), ~actions.c.superseded)
    .values(
        state=action_state("planned"),
        fence=actions.c.fence + 1,
        attempts=0,
        # What may have arrived may still have: who can look it up does so before this send.
        released=true(),
        decision=bindparam("its_decision"),
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
        decision=bindparam("its_decision"),
        upstream_id=bindparam("its_upstream_id"),
        error=bindparam("its_error", type_=Json()),
        ended_at=now(),
    )
    .returning(actions.c.id)
)


def actions_of(conn: Connection, run_id: str) -> list[ActionView]:
    """The run's actions in the order in which they were planned."""
    return [ActionView(**row._asdict()) for row in conn.execute(_OF_RUN, {"its_id": run_id})]


def list_actions(
    conn: Connection,
    *,
    project: str | None = None,
    run_id: str | None = None,
    state: ActionState | None = None,
    after: str | None = None,
    limit: int = 50,
) -> list[ActionView]:
    """
    At most `limit` actions, the newest first: of a project, of a run, in a state; those older than the action `after`.

    Goes back through the actions until there are enough: for people, not for loops.
    """
    asked = _NEWEST
    if project is not None:
        asked = asked.where(_project == bindparam("its_project"))
    if run_id is not None:
        asked = asked.where(actions.c.run_id == _its_id)
    if state is not None:
        asked = asked.where(actions.c.state == action_state(state))
    values = {"its_project": project, "its_id": run_id, "after_id": after or _LAST_ID, "at_most": limit}
    return [ActionView(**row._asdict()) for row in conn.execute(asked, values)]


def action(conn: Connection, action_id: str) -> ActionView | None:
    """One action, or `None` when there is none."""
    row = conn.execute(_ONE, {"its_id": action_id}).one_or_none()
    return None if row is None else ActionView(**row._asdict())


def retry_action(conn: Connection, action_id: str, *, decision: str | None = None) -> bool:
    """
    Send an action again that failed or is unknown, under its same key; it is due at once.

    One that may have arrived is looked up before, where its kind has a lookup. Returns: whether it was one of these,
    and not superseded. The caller owns the transaction, and after an ambiguous commit asks `decided` with the same
    nonce `decision`.
    """
    if (seen := conn.execute(_WHERE, {"its_id": action_id}).one_or_none()) is None:
        return False
    lock_runs(conn, {seen.run_id})
    values = {"its_id": action_id, "seen_fence": seen.fence, "its_decision": decision}
    if conn.execute(_RETRY, values).one_or_none() is None:
        return False
    if seen.state == ActionState.FAILED:
        count_pending(conn, {seen.run_id: 1})
    return True


def resolve_action(
    conn: Connection, action_id: str, *, upstream_id: str | None, by: str = "", decision: str | None = None
) -> bool:
    """
    Say what became of an unknown action: posted as `upstream_id`, or never, with `None`.

    Returns: whether it was unknown. The caller owns the transaction, and reads back as `retry_action` does.
    """
    if (seen := conn.execute(_WHERE, {"its_id": action_id}).one_or_none()) is None:
        return False
    lock_runs(conn, {seen.run_id})
    values = {
        "its_id": action_id,
        "seen_fence": seen.fence,
        "its_state": ActionState.FAILED if upstream_id is None else ActionState.POSTED,
        "its_upstream_id": upstream_id,
        "its_decision": decision,
        "its_error": {"type": "Resolved", "message": f"resolved by {by or 'a person'}"},
    }
    if conn.execute(_RESOLVE, values).one_or_none() is None:
        return False
    count_pending(conn, {seen.run_id: -1})
    return True


def decided(conn: Connection, action_id: str, *, decision: str) -> bool | None:
    """Read back: true when the decision of this nonce was made, and no other since; else `None`."""
    return conn.execute(_DECIDED, {"its_id": action_id, "its_decision": decision}).first() is not None or None
