"""
dispatch: queued runs whose message is due, or seems lost, are stamped and named for publishing.

The stamp is committed before anything is published. Each run's spacing doubles with every dispatch, up to
an hour, so a long backlog or a dead broker costs ever less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ColumnElement,
    Double,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from runclaim.ledger.fence import in_state
from runclaim.ledger.priority import PRIORITY
from runclaim.models import runs
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from sqlalchemy import Connection

_LONGEST_SPACING: Final = 3600.0
_MOST_DOUBLINGS: Final = 12


@dataclass(frozen=True, slots=True)
class Due:
    """What a message needs: which run, at which fence, and what its phase's task is called and routed by."""

    run_id: str
    fence: int
    flow: str
    phase: str
    queue: str | None
    #: `None` where only the run's id is at hand; monitors are told that then.
    key: str | None
    priority: int | None
    #: The run's input and identity, in messages of flows that fail open.
    carried: dict[str, Any] | None = None
    #: Whether an attempt of the phase was lost or has failed: then no other run shares its message.
    alone: bool = False


#: The first fields of a `Due`, in their order.
MESSAGE: Final = (runs.c.id, runs.c.fence, runs.c.flow, runs.c.phase, runs.c.queue, runs.c.key, PRIORITY)
_clock: Final = select(now()).scalar_subquery()
_known: Final = rowset("known", flow=Text(), phase=Text())
# 2 ** dispatches by shifting, capped before it can overflow; both databases know <<.
_doublings: Final = case((runs.c.dispatches > _MOST_DOUBLINGS, _MOST_DOUBLINGS), else_=runs.c.dispatches)
_wait: Final[ColumnElement[float]] = bindparam("spacing_seconds", type_=Double()) * literal_column(
    "1", Integer()
).bitwise_lshift(_doublings)
_due: Final = and_(in_state(RunState.QUEUED), runs.c.dispatch_due_at <= _clock)
_picked: Final = (
    select(runs.c.id)
    # A ledger may serve several applications and releases; each stamps what it can publish, and nothing else.
    .where(_due, tuple_(runs.c.flow, runs.c.phase).in_(select(_known.c.flow, _known.c.phase)))
    .order_by(runs.c.dispatch_due_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True, key_share=True)
    .cte("picked")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_DISPATCH: Final = (
    update(runs)
    .where(runs.c.id.in_(select(_picked.c.id)), _due)
    .values(
        dispatches=runs.c.dispatches + 1,
        dispatch_due_at=shifted(now(), case((_wait > _LONGEST_SPACING, _LONGEST_SPACING), else_=_wait)),
        updated_at=runs.c.updated_at,
    )
    .returning(*MESSAGE, or_(runs.c.attempts > 0, runs.c.losses > 0))
)


def dispatch(
    conn: Connection, *, phases: Collection[tuple[str, str]], spacing: timedelta, limit: int = 500
) -> list[Due]:
    """
    Stamp at most `limit` due runs at one of `phases` and return what to publish once the caller has committed.

    `phases` are pairs of a flow and a phase: those that the caller can publish. `spacing` is the wait before the first
    repetition. The caller owns the transaction.
    """
    values = {
        "known": pack({"flow": flow, "phase": phase} for flow, phase in phases),
        "at_most": limit,
        "spacing_seconds": spacing.total_seconds(),
    }
    return [
        Due(run_id, fence, flow, phase, queue, key, priority, alone=alone)
        for run_id, fence, flow, phase, queue, key, priority, alone in conn.execute(_DISPATCH, values)
    ]
