"""
What a ledger that was restored to an earlier point cannot know: what its runs have sent since that point.

So calls of a run that was enqueued before the restore are in doubt from the start, as those of a sender that died: they
are looked up before they are made. The moment of the restore is one row of counters, in microseconds since 1970.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Double,
    Text,
    and_,
    bindparam,
    case,
    exists,
    literal,
    literal_column,
    select,
    true,
    update,
)

from runclaim.ledger.fence import in_state
from runclaim.models import counters, runs
from runclaim.sql.clock import Instant, now, shifted
from runclaim.sql.upsert import upsert
from runclaim.states import RunState

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

_NAME: Final = "restored_at"
_MICROSECONDS: Final = 1_000_000
_EPOCH: Final = literal(datetime(1970, 1, 1, tzinfo=UTC), Instant())


def _keep(new: Any) -> Any:
    inserted = new.values(name=_NAME, flow="", value=bindparam("its_value", type_=BigInteger()))
    return inserted.on_conflict_do_update(index_elements=["name", "flow"], set_={"value": inserted.excluded.value})


_KEEP: Final = upsert(counters, _keep)
_seconds: Final = counters.c.value * literal_column("0.000001", Double())
#: When the ledger was restored, in seconds since 1970; NULL if it never was.
_restored_at: Final = (
    select(_seconds)
    .where(counters.c.name == literal_column(f"'{_NAME}'", Text()), counters.c.flow == literal_column("''", Text()))
    .scalar_subquery()
)


_RING: Final = (
    update(runs)
    .where(in_state(RunState.QUEUED))
    .values(dispatch_due_at=case((runs.c.available_at > now(), runs.c.available_at), else_=now()), dispatches=0)
)


def is_in_doubt(run_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a run was there when the ledger was restored, so that what it calls may have arrived before."""
    was_there = exists(
        select(true())
        .select_from(runs)
        .where(runs.c.id == run_id, runs.c.enqueued_at <= shifted(_EPOCH, _restored_at))
        .correlate_except(runs)
    )
    # Asked first, for ledgers that never were: they look up no run.
    return and_(_restored_at.is_not(None), was_there)


def mark_restored(conn: Connection) -> datetime:
    """
    Note that the ledger was restored: every run that is there now is in doubt, and every queued one is due.

    Its message may have been taken since the backup. The caller owns the transaction.
    """
    at = conn.execute(select(now())).scalar_one()
    conn.execute(_KEEP[conn.dialect.name], {"its_value": math.ceil(at.timestamp() * _MICROSECONDS)})
    conn.execute(_RING)
    return at
