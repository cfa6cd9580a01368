"""
heartbeat: a process shows that it lives, for all its claims in one statement. No beat passes a deadline.

A heartbeat waits for no lock: a run whose row another transaction holds is skipped, so one open transaction does not
let the leases of other runs lapse. While its row is locked, the run cannot be rescued either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, and_, select, update

from runclaim.ledger.fence import Claim, held, locked, proofs
from runclaim.models import runs
from runclaim.sql.clock import earlier, now, shifted
from runclaim.sql.rowset import pack

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import timedelta

    from sqlalchemy import Connection

_beats: Final = proofs("beats", lease_seconds=Double())
_beating: Final = locked(_beats, held(_beats), pass_over=True)
_HEARTBEAT: Final = (
    update(runs)
    .where(held(_beating), now() < runs.c.deadline_at)
    .values(
        lease_expires_at=earlier(shifted(now(), _beating.c.lease_seconds), runs.c.deadline_at),
        updated_at=runs.c.updated_at,
    )
    # The column itself: SQLite 3.40 answers `IS NOT NULL` wrongly in the RETURNING of an UPDATE … FROM.
    .returning(runs.c.id, runs.c.cancel_requested_at)
)
_asked: Final = proofs("asked")
_STANDING: Final = select(runs.c.id, runs.c.cancel_requested_at).join_from(
    _asked, runs, and_(held(_asked), now() < runs.c.deadline_at)
)


def heartbeat(conn: Connection, claims: Collection[tuple[Claim, timedelta]]) -> dict[str, bool]:
    """
    Extend the lease of each `(claim, lease)`, and learn what was asked of its run meanwhile.

    Returns: run id → whether it is to be canceled. A claim that is missing from the answer is lost (rescued,
    superseded, or past its deadline), or was passed over: ask `passed_over`. The caller owns the transaction.
    """
    rows = [claim.proof() | {"lease_seconds": lease.total_seconds()} for claim, lease in claims]
    return _answers(conn.execute(_HEARTBEAT, {"beats": pack(rows)}))


def passed_over(conn: Connection, claims: Collection[Claim]) -> dict[str, bool]:
    """
    Those of `claims` that no heartbeat reached because another transaction holds their runs' rows. Only reads.

    They are current. Their leases were not extended, so beat again soon. Returns: run id → whether it is to be
    canceled.
    """
    return _answers(conn.execute(_STANDING, {"asked": pack(claim.proof() for claim in claims)}))


def _answers(rows: Iterable[Any]) -> dict[str, bool]:
    return {run_id: asked_at is not None for run_id, asked_at in rows}
