"""
The tally: totals that this process counts, such as refused duplicates, until they are written to the ledger.

Each amount is added once, even if the answer to its COMMIT is lost: the database is asked what became of that
transaction before anything is added again.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from runclaim.ledger import counters

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.database import Database

    Amounts = Counter[tuple[str, str]]


class Tally:
    """Safe across threads; a forked process makes its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._counted: Amounts = Counter()
        #: What was written by a transaction that may or may not have committed, and its number.
        self._in_doubt: tuple[Amounts, str] | None = None

    def count(self, name: str, flow: str) -> None:
        """Add one to a total."""
        with self._lock:
            self._counted[name, flow] += 1

    def write(self, *, patience: float) -> None:
        """Write what was counted; `patience` is in seconds. Raises: LedgerUnavailable, and then it is written later."""
        # The end of the process waits for a write that is under way.
        with self._writing:
            self._settle_doubt(patience)
            with self._lock:
                amounts, self._counted = self._counted, Counter()
            if amounts:
                self._add(amounts, patience)

    def _add(self, amounts: Amounts, patience: float) -> None:
        numbers: list[str] = []

        def work(conn: Connection) -> bool:
            numbers[:] = counters.add(conn, amounts)
            return True

        def read_back(conn: Connection) -> bool | None:
            return (bool(numbers) and counters.committed(conn, numbers[0])) or None

        try:
            self._database.run(work, read_back=read_back, patience=patience)
        except Exception:
            if numbers:
                self._in_doubt = amounts, numbers[0]
            else:
                self._count_again(amounts)
            raise

    def _settle_doubt(self, patience: float) -> None:
        if self._in_doubt is not None:
            amounts, number = self._in_doubt
            if not self._database.ask(lambda conn: counters.committed(conn, number), patience=patience):
                self._count_again(amounts)
            self._in_doubt = None

    def _count_again(self, amounts: Amounts) -> None:
        with self._lock:
            self._counted.update(amounts)
