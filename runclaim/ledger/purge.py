"""
purge: finished history is deleted in batches, oldest first; run keys by their own expiry.

A run with a pending action stays. Its results, events and later children go with it (foreign keys cascade), and the row
of its subject when it was the last run of it; its key stays behind as the tombstone that refuses a late duplicate.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BigInteger,
    Double,
    Integer,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
)

from runclaim.ledger.history.unused_subjects import Subject, end_subjects
from runclaim.models import events, run_keys, runs, untold
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import pack, rowset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from runclaim.states import RunState

_kept: Final = rowset("kept", flow=Text(), state=Text(), keep_seconds=Double())
_special: Final = rowset("special", flow=Text())
# How long a run is kept; NULL, which nothing is older than, where it is not said. Asked of each row and not joined: for
# a join PostgreSQL would rather read and sort all that is due, in every batch.
_keep_seconds: Final = (
    select(func.max(_kept.c.keep_seconds))
    .where(
        _kept.c.state == runs.c.state,
        or_(
            _kept.c.flow == runs.c.flow,
            and_(_kept.c.flow.is_(None), runs.c.flow.not_in(select(_special.c.flow))),
        ),
    )
    .correlate(runs)
    .scalar_subquery()
)
# Asked of each row too, and by index.
_last_event: Final = select(func.max(events.c.id)).where(events.c.run_id == runs.c.id).correlate(runs).scalar_subquery()
_waits_to_be_told: Final = (
    select(untold.c.event_id)
    .where(untold.c.run_id == runs.c.id, untold.c.state == literal_column("'waiting'", Text()))
    .limit(1)
    .correlate(runs)
    .scalar_subquery()
)
#: How long beyond its retention a run is kept for listeners that were not told of its events; then it is purged anyway.
LONGEST_WAIT: Final = timedelta(days=7)
_is_heard: Final = or_(
    and_(func.coalesce(_last_event, 0) <= bindparam("heard", type_=BigInteger()), _waits_to_be_told.is_(None)),
    runs.c.finished_at <= shifted(now(), -_keep_seconds - literal_column(str(LONGEST_WAIT.total_seconds()), Double())),
)
_oldest: Final = (
    select(runs.c.id)
    .where(
        runs.c.finished_at.is_not(None),
        # The shortest retention bounds the index scan; each run's own decides.
        runs.c.finished_at <= shifted(select(now()).scalar_subquery(), -bindparam("shortest", type_=Double())),
        runs.c.finished_at <= shifted(now(), -_keep_seconds),
        runs.c.pending_actions == 0,
        _is_heard,
    )
    .order_by(runs.c.finished_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True, of=runs)
    .cte("oldest")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_NEVER: Final = 2**63 - 1
#: The most runs that one call deletes. Written out: for a limit that it does not know PostgreSQL expects a tenth of all
#: that is due, and would rather read the whole table to delete them.
_MOST: Final = 500
_PURGE: Final = (
    delete(runs)
    .where(
        runs.c.id.in_(select(_oldest.c.id).limit(literal_column(str(_MOST), Integer()))),
        runs.c.finished_at.is_not(None),
        runs.c.pending_actions == 0,
    )
    .returning(runs.c.project, runs.c.flow, runs.c.subject)
)
_expired: Final = (
    select(run_keys.c.namespace, run_keys.c.key_hash)
    .where(
        run_keys.c.expires_at <= select(now()).scalar_subquery(),
        ~exists(select(true()).select_from(runs).where(runs.c.id == run_keys.c.run_id).correlate(run_keys)),
    )
    .order_by(run_keys.c.expires_at)
    .limit(bindparam("at_most"))
    .cte("expired")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_PURGE_KEYS: Final = (
    delete(run_keys)
    .where(
        exists(
            select(true())
            .select_from(_expired)
            .where(_expired.c.namespace == run_keys.c.namespace, _expired.c.key_hash == run_keys.c.key_hash)
            .correlate(run_keys)
        ),
        run_keys.c.expires_at <= now(),
    )
    .returning(run_keys.c.run_id)
)


def purge(
    conn: Connection,
    keep: Mapping[RunState, timedelta],
    *,
    flows: Mapping[str, Mapping[RunState, timedelta]] | None = None,
    heard: int | None = None,
    limit: int = 500,
) -> int:
    """
    Delete at most `limit` runs (and never more than 500) that ended longer ago than is said for their state.

    `flows` says it for the flows that it names, `keep` for all others; a state that is left out is kept. A run with an
    event after `heard`, the last that every listener was told, is kept for up to `LONGEST_WAIT` more; `None` is for a
    ledger without listeners. Returns: how many went. The caller owns the transaction, and repeats while the answer is
    `limit`.
    """
    special = flows or {}
    rows = [
        {"flow": flow, "state": state, "keep_seconds": kept.total_seconds()}
        for flow, said in [(None, keep), *special.items()]
        for state, kept in said.items()
    ]
    times = [kept.total_seconds() for said in (keep, *special.values()) for kept in said.values()]
    values = {
        "kept": pack(rows),
        "special": pack({"flow": flow} for flow in special),
        "shortest": min(times, default=0.0),
        "heard": _NEVER if heard is None else heard,
        "at_most": min(limit, _MOST),
    }
    gone = conn.execute(_PURGE, values).all()
    end_subjects(conn, {Subject(*row) for row in gone if row.subject is not None})
    return len(gone)


def purge_keys(conn: Connection, *, limit: int = 500) -> int:
    """Delete at most `limit` expired keys whose runs are gone. In a transaction of its own: keys lock before runs."""
    return len(conn.execute(_PURGE_KEYS, {"at_most": limit}).all())
