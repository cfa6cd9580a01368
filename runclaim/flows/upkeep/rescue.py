"""
Rescuing: lapsed claims are given back, and what the flows want done when a run stops by it is planned.

A claim lapses because its worker died, or cannot reach the ledger. Each batch is a transaction of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runclaim import failpoints
from runclaim.flows.declare.registry import hooks_of_any_stop
from runclaim.ledger.rescue import rescue, rescue_worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow

_BATCH: Final = 500


def rescue_lapsed(database: Database, *, flows: Mapping[str, DeclaredFlow[Any]]) -> int:
    """Give back every claim whose lease has lapsed; returns how many. Raises: LedgerUnavailable."""
    total = 0
    while True:
        rescued = database.run(lambda conn: rescue(conn, limit=_BATCH, hooks=hooks_of_any_stop(conn, flows)))
        failpoints.hit("rescue.after_commit")
        total += len(rescued)
        if len(rescued) < _BATCH:
            return total


def rescue_claims_of(worker: str, database: Database, *, flows: Mapping[str, DeclaredFlow[Any]]) -> int:
    """Give back the claims of a worker that has died, whatever their leases; returns how many."""
    return len(database.run(lambda conn: rescue_worker(conn, worker, hooks=hooks_of_any_stop(conn, flows))))
