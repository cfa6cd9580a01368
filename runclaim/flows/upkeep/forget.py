"""Forgetting: dedup windows that have closed, and kept answers that will not be asked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.ledger.doors.dedup_windows import forget
from runclaim.ledger.doors.idempotency_keys import forget_answers

if TYPE_CHECKING:
    from runclaim.database import Database


def forget_expired(database: Database) -> int:
    """Delete all of both, each batch in a transaction of its own; returns how many went. Raises: LedgerUnavailable."""
    total = 0
    for verb in (forget, forget_answers):
        while gone := database.run(verb):
            total += gone
    return total
