"""
After the application's commit: call something once its transaction, not a savepoint of it, has committed.

SQLAlchemy tells a session of savepoints too, so the outermost transaction is what is waited for; a savepoint
that rolls back takes with it what was asked for inside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session, SessionTransaction

_KEY: Final = "runclaim.after_commit"


class Fate(StrEnum):
    """What became of a transaction, as words about what it wrote."""

    OPEN = "is not committed yet: its transaction has to commit first"
    COMMITTED = "is committed"
    ROLLED_BACK = "was rolled back with its transaction: there is no such run"


@dataclass(slots=True, eq=False)
class Pending:
    """What waits for the end of a transaction, and what became of that."""

    around: set[SessionTransaction]
    call: Callable[[], None]
    fate: Fate = Fate.OPEN


def after_commit(session: Session, call: Callable[[], None]) -> Pending:
    """
    Call once, after the commit of the session's transaction; not when that, or a savepoint around, rolls back.

    Returns: what tells whether it has come to that.
    """
    waiting = session.info.get(_KEY)
    if waiting is None:
        waiting = session.info[_KEY] = _Waiting(session)
    return waiting.add(session, call)


class _Waiting:
    """What a session's transaction is to call; its listeners stay for the session's life."""

    def __init__(self, session: Session) -> None:
        self._calls: list[Pending] = []
        self._committed = False
        # A listener that removed itself would change the list that SQLAlchemy is going through.
        event.listen(session, "after_commit", self._noticed)
        event.listen(session, "after_soft_rollback", self._rolled_back)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, session: Session, call: Callable[[], None]) -> Pending:
        """Wait for the end of the session's current transaction."""
        around: set[SessionTransaction] = set()
        inner = session.get_nested_transaction() or session.get_transaction()
        while inner is not None:
            around.add(inner)
            inner = inner.parent
        self._committed = False
        pending = Pending(around, call)
        self._calls.append(pending)
        return pending

    def _noticed(self, session: Session) -> None:
        self._committed = not session.in_nested_transaction()

    def _rolled_back(self, _session: Session, transaction: SessionTransaction) -> None:
        for each in self._calls:
            if transaction in each.around:
                each.fate = Fate.ROLLED_BACK
        self._calls = [each for each in self._calls if each.fate is Fate.OPEN]

    def _ended(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested or transaction.parent is not None:
            return
        calls, self._calls = self._calls, []
        for each in calls:
            each.fate = Fate.COMMITTED if self._committed else Fate.ROLLED_BACK
            if self._committed:
                each.call()
