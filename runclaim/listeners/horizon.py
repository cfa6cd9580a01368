"""
How far the journal can be read without skipping an event whose transaction commits late; see `ledger.tail`.

A transaction of the application that enqueued a run and stays open holds this up, and every listener, until it ends.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from runclaim.ledger.listeners import tail

if TYPE_CHECKING:
    from datetime import timedelta

    from runclaim.database import Database

_FIRST_PAUSE: Final = 0.002
_LONGEST_PAUSE: Final = 0.1


def settled(database: Database, *, within: timedelta) -> int | None:
    """
    An event id up to which nothing can appear any more; `None` when that is not known `within` the time.

    Writers that come later do not matter, so a busy ledger delays no listener. Raises: LedgerUnavailable.
    """
    upto = database.ask(tail.newest)
    # Each question is a transaction of its own: what has ended by then is in the next one's snapshot.
    waited = database.ask(tail.writers)
    ends, pause = time.monotonic() + within.total_seconds(), _FIRST_PAUSE
    while waited:
        if time.monotonic() >= ends:
            return None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
        waited &= database.ask(tail.writers)
    return upto
