"""
The application's rows of a completion: the functions handed to `ctx.in_completion`, and whose error an error is.

What a function raises is an error of its attempt. What may pass by itself is repeated with the whole transaction first.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from runclaim.errors import LedgerRefused, RunclaimError
from runclaim.sql.trouble import Trouble, trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

_ENDS_TRANSACTION: Final = re.compile(
    r"\s*(commit|end|abort|rollback(?!\s+(work\s+|transaction\s+)?to\b)|prepare\s+transaction|begin|start)\b",
    re.IGNORECASE,
)
_OURS: Final = "the ledger commits it with the completion"


class CompletionFailed(Exception):
    """A function handed to `ctx.in_completion` raised `error`: its attempt ends as if its body had raised it."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class Writes:
    """The functions of one completion; `error` is what they raised in the latest try."""

    def __init__(self, functions: Sequence[Callable[[Session], object]]) -> None:
        self.functions = functions
        self.error: Exception | None = None

    def write(self, conn: Connection) -> None:
        """Call them, in the ledger's transaction, and remember the one that raises."""
        self.error = None
        if not self.functions:
            return
        try:
            with _guarded(conn):
                self._write(conn)
        except Exception as error:
            self.error = error
            raise

    def _write(self, conn: Connection) -> None:
        # rollback_only: a function that commits its session does not end the ledger's transaction.
        with Session(conn, join_transaction_mode="rollback_only", expire_on_commit=False) as session:
            for function in self.functions:
                function(session)
                _require_transaction(conn)
            session.flush()
            # Closing would roll back; the ledger commits.
            session.commit()

    def commit(self, conn: Connection) -> None:
        """End the transaction, so that a deferred constraint of the application speaks here."""
        if not self.functions:
            return
        try:
            conn.get_transaction().commit()  # type: ignore[union-attr]
        except DBAPIError as error:
            # The ledger's own tables defer nothing.
            if trouble(error) in {Trouble.FATAL, Trouble.REFUSED}:
                self.error = error
            raise

    def raised(self, error: BaseException) -> bool:
        """Whether it is an error of the functions, even if the ledger has translated it."""
        is_ours = error is self.error or (isinstance(error, LedgerRefused) and error.__cause__ is self.error)
        return self.error is not None and is_ours


def _require_transaction(conn: Connection) -> None:
    """Raises: RunclaimError when a function has ended the ledger's transaction, or left it useless."""
    if not conn.in_transaction():
        raise RunclaimError(
            "a function handed to ctx.in_completion rolled back its session, and the completion with it;"
            " use `with session.begin_nested():` around what may fail"
        )
    info = getattr(conn.connection.driver_connection, "info", None)
    if info is not None and info.transaction_status.name == "INERROR":
        raise RunclaimError(
            "a function handed to ctx.in_completion caught a database error and continued in a transaction that"
            " accepts nothing more; use `with session.begin_nested():` around what may fail"
        )


@contextmanager
def _guarded(conn: Connection) -> Iterator[None]:
    """Only the ledger ends its transaction: otherwise rows would last whose completion is refused."""

    def refuse_commit(inner: Connection) -> None:
        # SQLAlchemy takes the transaction for ended now, and would give the connection back before its end.
        inner.connection.rollback()
        raise RunclaimError(f"a function handed to ctx.in_completion committed the session's connection: {_OURS}")

    def refuse_statement(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if ending := _ENDS_TRANSACTION.match(statement):
            word = ending[1].upper()
            raise RunclaimError(f"a function handed to ctx.in_completion executed {word}: {_OURS}")

    event.listen(conn, "commit", refuse_commit)
    event.listen(conn, "before_cursor_execute", refuse_statement)
    try:
        yield
    finally:
        event.remove(conn, "commit", refuse_commit)
        event.remove(conn, "before_cursor_execute", refuse_statement)
