"""heartbeat: a process shows that it lives, for all its claims in one statement. No beat passes a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import Double, update

from runclaim.clock import now, shifted
from runclaim.ledger.claim import Claim, earlier
from runclaim.ledger.fence import held, locked, proofs
from runclaim.models import runs
from runclaim.rowset import pack

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from sqlalchemy import Connection

_beats: Final = proofs("beats", lease_seconds=Double())
_beating: Final = locked(_beats, held(_beats))
_HEARTBEAT: Final = (
    update(runs)
    .where(held(_beating), now() < runs.c.deadline_at)
    .values(lease_expires_at=earlier(shifted(now(), _beating.c.lease_seconds), runs.c.deadline_at))
    # The column itself: SQLite 3.40 answers `IS NOT NULL` wrongly in the RETURNING of an UPDATE … FROM.
    .returning(runs.c.id, runs.c.cancel_requested_at)
)


def heartbeat(conn: Connection, claims: Collection[tuple[Claim, timedelta]]) -> dict[str, bool]:
    """
    Extend the lease of each `(claim, lease)`, and learn what was asked of its run meanwhile.

    Returns: run id → whether it is to be canceled. A claim that is missing from the answer is lost: rescued,
    superseded, or past its deadline. The caller owns the transaction.
    """
    rows = [claim.proof() | {"lease_seconds": lease.total_seconds()} for claim, lease in claims]
    found = conn.execute(_HEARTBEAT, {"beats": pack(rows)})
    return {run_id: asked_at is not None for run_id, asked_at in found}
