"""
Actions are claimed one by one to be sent.

An action is claimed and fenced by columns of its own row: at most one sender counts at a time. A claim that finds
an earlier one still open takes over its doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Text, and_, bindparam, or_, select, update

from runclaim.codec import needed
from runclaim.ledger.actions.plan import OPEN, action_state
from runclaim.ledger.history.restored import is_in_doubt
from runclaim.models import actions
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import pack, rowset

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class ActionClaim:
    """The right to send an action now, once; `uncertain` when an earlier send may have arrived."""

    action_id: str
    fence: int
    owner: str
    run_id: str
    phase: str
    kind: str
    payload: Any
    idempotency_key: str
    attempt: int
    uncertain: bool
    superseded: bool
    #: A person has asked for this send, whatever became of the one before.
    released: bool = False

    def proof(self) -> dict[str, Any]:
        """The columns that `holds` compares."""
        return {"action_id": self.action_id, "fence": self.fence, "owner": self.owner}


_due: Final = and_(OPEN, actions.c.available_at <= select(now()).scalar_subquery())
_kinds: Final = rowset("kinds", kind=Text(), seconds=Double())
_picked: Final = (
    select(actions.c.id, _kinds.c.seconds)
    .join_from(actions, _kinds, _kinds.c.kind == actions.c.kind)
    .where(_due)
    .order_by(actions.c.available_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True, of=actions)
    .cte("picked")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_CLAIM_COLUMNS: Final = (
    actions.c.id.label("action_id"),
    actions.c.fence,
    actions.c.owner,
    actions.c.run_id,
    actions.c.phase,
    actions.c.kind,
    actions.c.payload,
    actions.c.idempotency_key,
    actions.c.attempts.label("attempt"),
    actions.c.uncertain,
    actions.c.superseded,
    actions.c.released,
)
_CLAIM: Final = (
    update(actions)
    .where(actions.c.id == _picked.c.id, _due)
    .values(
        state=action_state("sending"),
        fence=actions.c.fence + 1,
        attempts=actions.c.attempts + 1,
        # A sender that never came back may have got through, or one that a restored ledger does not know.
        uncertain=or_(actions.c.uncertain, actions.c.state == action_state("sending"), is_in_doubt(actions.c.run_id)),
        # It was for one send.
        released=and_(actions.c.released, actions.c.state == action_state("planned")),
        owner=bindparam("by_owner"),
        available_at=shifted(now(), _picked.c.seconds),
        attempted_at=now(),
    )
    .returning(*_CLAIM_COLUMNS)
)
_READ_BACK: Final = select(*_CLAIM_COLUMNS).where(
    actions.c.owner == bindparam("by_owner"),
    actions.c.state == action_state("sending"),
    OPEN,
    # A claim that was just made; so bounded, the index of what is due finds it.
    actions.c.available_at > select(now()).scalar_subquery(),
)


def claim_actions(conn: Connection, kinds: Mapping[str, timedelta], *, owner: str, limit: int = 1) -> list[ActionClaim]:
    """
    Take at most `limit` due actions, the longest due first; `kinds` maps each kind to how long a send may take.

    A sender that is silent for this long has lost its claim. The caller owns the transaction, and sends after its
    commit.
    """
    rows = [{"kind": kind, "seconds": longest.total_seconds()} for kind, longest in kinds.items()]
    found = conn.execute(_CLAIM, {"kinds": pack(rows), "by_owner": owner, "at_most": limit})
    return [_claim(row) for row in found]


def claimed_actions(conn: Connection, *, owner: str) -> list[ActionClaim]:
    """Read back: what this owner's nonce holds."""
    return [_claim(row) for row in conn.execute(_READ_BACK, {"by_owner": owner})]


def _claim(row: Any) -> ActionClaim:
    return ActionClaim(**row._asdict() | {"payload": needed(row.payload)})
