"""
How the sends of actions end, recorded only under the current claim of the action.

`unknown` waits for a person. A run with an action that is planned, sending or unknown is not purged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Boolean, Double, Text, and_, case, false, null, select, update

from runclaim.codec import seal
from runclaim.ledger.actions.plan import action_state, count_pending
from runclaim.models import actions, runs
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import Id, as_json, pack, rowset

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from sqlalchemy import ColumnElement, Connection, FromClause

    from runclaim.ledger.actions.claim import ActionClaim


class ActionState(StrEnum):
    """The state of an action."""

    PLANNED = "planned"
    SENDING = "sending"
    POSTED = "posted"
    FAILED = "failed"
    UNKNOWN = "unknown"


#: Nothing more happens to it by itself, and no decision is needed.
SETTLED: Final = frozenset({ActionState.POSTED, ActionState.FAILED})


@dataclass(frozen=True, slots=True)
class Sent:
    """How a claim ended: for good, or `PLANNED` to try again after `delay`."""

    claim: ActionClaim
    state: ActionState
    delay: timedelta
    uncertain: bool = False
    upstream_id: str | None = None
    error: dict[str, Any] | None = None


_sent: Final = rowset(
    "sent",
    action_id=Id(),
    fence=BigInteger(),
    owner=Text(),
    state=Text(),
    delay_seconds=Double(),
    uncertain=Boolean(),
    upstream_id=Text(),
    error=Text(),
)
_their_runs: Final = rowset("theirs", run_id=Id())
# Runs before actions: a newer run of the subject holds its runs when it comes for their actions.
_LOCK_RUNS: Final = (
    select(runs.c.id)
    .join_from(_their_runs, runs, runs.c.id == _their_runs.c.run_id)
    .order_by(runs.c.id)
    .with_for_update(of=runs, key_share=True)
)


def holds(claims: FromClause) -> ColumnElement[bool]:
    """The fence of an action: true only for the rows that these claims still own."""
    return and_(
        actions.c.id == claims.c.action_id,
        actions.c.state == action_state("sending"),
        actions.c.fence == claims.c.fence,
        actions.c.owner == claims.c.owner,
    )


_is_planned_anew: Final = _sent.c.state == "planned"
_SETTLE: Final = (
    update(actions)
    .where(holds(_sent))
    .values(
        state=_sent.c.state,
        fence=actions.c.fence + 1,
        owner=null(),
        uncertain=_sent.c.uncertain,
        released=false(),
        available_at=shifted(now(), _sent.c.delay_seconds),
        upstream_id=_sent.c.upstream_id,
        error=as_json(_sent.c.error),
        ended_at=case((_is_planned_anew, null()), else_=now()),
    )
    .returning(actions.c.id, actions.c.run_id, actions.c.state)
)
# As `lock_runs`, but no one is waited for; so the order in which the two rows are locked makes no circle either.
_FREE: Final = (
    select(actions.c.id)
    .join_from(_sent, actions, holds(_sent))
    .join(runs, runs.c.id == actions.c.run_id)
    .order_by(runs.c.id, actions.c.id)
    .with_for_update(of=[runs, actions], key_share=True, skip_locked=True)
)
_STANDING: Final = select(actions.c.id).join_from(_sent, actions, holds(_sent))
_AFTER: Final = select(actions.c.id, actions.c.state).join_from(
    actions,
    _sent,
    and_(
        actions.c.id == _sent.c.action_id,
        actions.c.fence == _sent.c.fence + 1,
        actions.c.state != action_state("sending"),
    ),
)


def lock_runs(conn: Connection, run_ids: Collection[str]) -> None:
    """Lock these runs, in the order of their ids, before any of their actions is written."""
    conn.execute(_LOCK_RUNS, {"theirs": pack({"run_id": run_id} for run_id in run_ids)}).all()


def settle_actions(conn: Connection, sent: Collection[Sent]) -> dict[str, ActionState]:
    """
    Record how sends ended, where the claim is still current and no other transaction holds the rows.

    Returns: action id → its state now. What is missing has lost its claim, or was passed over: ask `passed_over`. The
    caller owns the transaction.
    """
    free = set(conn.execute(_FREE, {"sent": pack(_sent_row(each) for each in sent)}).scalars())
    if not (reached := [each for each in sent if each.claim.action_id in free]):
        return {}
    found = conn.execute(_SETTLE, {"sent": pack(_sent_row(each) for each in reached)}).all()
    over = [run_id for _, run_id, state in found if state in SETTLED]
    count_pending(conn, {run_id: -over.count(run_id) for run_id in over})
    return {action_id: ActionState(state) for action_id, _, state in found}


def passed_over(conn: Connection, sent: Collection[Sent]) -> set[str]:
    """
    Those of `sent` that were not settled because another transaction holds their rows. Only reads.

    Their claims are current: settle them later. Returns: action ids.
    """
    return set(conn.execute(_STANDING, {"sent": pack(_sent_row(each) for each in sent)}).scalars())


def settled_actions(conn: Connection, sent: Collection[Sent]) -> dict[str, ActionState]:
    """Read back: those of `sent` that the ledger shows as ended by their very claims."""
    found = conn.execute(_AFTER, {"sent": pack(_sent_row(each) for each in sent)})
    return {action_id: ActionState(state) for action_id, state in found}


def _sent_row(sent: Sent) -> dict[str, Any]:
    return sent.claim.proof() | {
        "state": sent.state,
        "delay_seconds": sent.delay.total_seconds(),
        "uncertain": sent.uncertain,
        "upstream_id": sent.upstream_id,
        "error": None if sent.error is None else json.dumps(seal(sent.error)),
    }
