"""
What a body writes while it runs, each under the claim of its attempt: sessions, and calls whose answers it needs.

A claim that is lost writes nothing: the body hears of it as `ClaimLost`, as it does from `ctx.check`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from runclaim.keys import dump_json, uuid7
from runclaim.ledger.body.acts import answer_act, begin_act, forget_act
from runclaim.ledger.body.named_sessions import keep_named, read_named
from runclaim.ledger.body.sessions import SessionState, SessionView, note_session, open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from runclaim.database import Database
    from runclaim.ledger.fence import Claim

T = TypeVar("T")


class ClaimedWrites:
    """The ledger, as the body of one claim may write to it."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database, self._claim = database, claim

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._database.run(work)

    def open_session(self, role: str) -> SessionView:
        """The session of this phase and role, new or found. Raises: ClaimLost."""
        return self._write(lambda conn: open_session(conn, self._claim, role, session_id=uuid7()))

    def note_session(self, role: str, state: SessionState) -> None:
        """Keep what is known now. Raises: ClaimLost."""
        self._write(lambda conn: note_session(conn, self._claim, role, state))

    def read_named(self, name: str) -> tuple[str | None, int]:
        """The provider's session under the name and its version; `(None, 0)` when there is none."""
        session = self._database.ask(lambda conn: read_named(conn, self._claim.run_id, name))
        return (None, 0) if session is None else (session.provider_session_id, session.version)

    def keep_named(self, name: str, provider_session_id: str, seen: int) -> int | None:
        """The new version, or `None` when it is no longer at `seen`. Raises: ClaimLost."""
        return self._write(
            lambda conn: keep_named(conn, self._claim, name, provider_session_id=provider_session_id, seen=seen)
        )

    def begin_act(self, name: str) -> tuple[bool, str, Any]:
        """Note that a call is about to be made: whether it is the first, its state, its answer. Raises: ClaimLost."""
        # No other attempt can begin it while the claim is ours: after an ambiguous commit the first answer holds.
        answers: list[tuple[bool, str, Any]] = []

        def work(conn: Connection) -> tuple[bool, str, Any]:
            answers.append(begin_act(conn, self._claim, name))
            return answers[0]

        return self._write(work)

    def forget_act(self, name: str) -> None:
        """The call was not made after all. Raises: ClaimLost."""
        self._write(lambda conn: forget_act(conn, self._claim, name))

    def answer_act(self, name: str, answer: Any) -> Any:
        """Record the answer of a call; returns it as every later attempt will get it. Raises: ClaimLost, InputError."""
        text = dump_json(f"the answer of {name}", answer)
        self._write(lambda conn: answer_act(conn, self._claim, name, text))
        return json.loads(text)
