"""
After the application's commit: call something once its transaction, not a savepoint of it, has committed.

SQLAlchemy tells a session of savepoints too, so the outermost transaction is what is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session, SessionTransaction


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Call once, after the commit of the session's current transaction; not at all when it rolls back."""
    committed = False

    def noticed(found: Session) -> None:
        nonlocal committed
        committed = not found.in_nested_transaction()

    def ended(_found: Session, transaction: SessionTransaction) -> None:
        if transaction.nested or transaction.parent is not None:
            return
        event.remove(session, "after_commit", noticed)
        event.remove(session, "after_transaction_end", ended)
        if committed:
            call()

    event.listen(session, "after_commit", noticed)
    event.listen(session, "after_transaction_end", ended)
