"""resume: a blocked run continues at its blocked phase, with fresh budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runclaim.events import EventType
from runclaim.ledger.journal import request_data
from runclaim.ledger.retry import move, requeue
from runclaim.states import RunState

if TYPE_CHECKING:
    from sqlalchemy import Connection

_RESUME: Final = requeue(RunState.BLOCKED)


def resume(conn: Connection, run_id: str, *, by: str = "", call: str = "") -> bool:
    """
    Queue a blocked run requeue from its blocked phase; due for dispatch at once.

    Returns: whether it was blocked. The caller owns the transaction, and after an ambiguous commit asks
    `journal.entries_of` with the same nonce `call`.
    """
    return move(conn, _RESUME, run_id, EventType.RUN_RESUMED, request_data(by, call))
