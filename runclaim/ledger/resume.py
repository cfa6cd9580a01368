"""resume: a blocked run goes on from its blocked phase, with fresh budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runclaim.events import EventType
from runclaim.ledger.journal import told_by
from runclaim.ledger.retry import again, move
from runclaim.states import RunState

if TYPE_CHECKING:
    from sqlalchemy import Connection

_RESUME: Final = again(RunState.BLOCKED)


def resume(conn: Connection, run_id: str, *, by: str = "", call: str = "") -> bool:
    """
    Queue a blocked run again from its blocked phase; due for dispatch at once.

    Returns: whether it was blocked. The caller owns the transaction, and after an ambiguous commit asks
    `journal.entries_of` with the same nonce `call`.
    """
    return move(conn, _RESUME, run_id, EventType.RUN_RESUMED, told_by(by, call))
