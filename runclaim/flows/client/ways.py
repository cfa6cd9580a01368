"""The ways to make runs: each a verb of the ledger, and how an ambiguous commit of it is read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runclaim.keys import nonce
from runclaim.ledger.enqueue import Enqueued, enqueue
from runclaim.ledger.recover import recover, recovered
from runclaim.ledger.rerun import reran, rerun

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from runclaim.ledger.new_run import NewRun


@dataclass(frozen=True, slots=True)
class Way:
    """How runs are made, and read back after an ambiguous commit; without `read_back` they are made again."""

    make: Callable[[Connection, Sequence[NewRun]], list[Enqueued]]
    read_back: Callable[[Connection, Sequence[NewRun]], list[Enqueued] | None] | None


#: A key's run recognises itself.
ENQUEUE: Final = Way(enqueue, None)
RERUN: Final = Way(rerun, reran)


def recovery() -> Way:
    """A way for one call, which makes one run under the id that it was given."""
    mine = nonce()

    def read_back(conn: Connection, wanted: Sequence[NewRun]) -> list[Enqueued] | None:
        found = recovered(conn, wanted[0], nonce=mine)
        return None if found is None else [found]

    return Way(lambda conn, wanted: [recover(conn, wanted[0], nonce=mine)], read_back)
