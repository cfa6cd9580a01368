"""
Sessions as a body uses them: with a provider inside a run, and kept under a name across runs.

Each is written at once, under the claim of the attempt: an attempt after a crash finds what the last one has started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from runclaim.errors import InputError, NamedSessionMoved
from runclaim.keys import check_text
from runclaim.ledger.body.sessions import SessionState, SessionView
from runclaim.secrets import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from runclaim.flows.body.drafts import Finding


class SessionStore(Protocol):
    """Where sessions are kept: the ledger under the attempt's claim, or a test's memory."""

    def open_session(self, role: str) -> SessionView:
        """The session of this phase and role, new or found. Raises: ClaimLost."""
        ...

    def note_session(self, role: str, state: SessionState) -> None:
        """Keep what is known now. Raises: ClaimLost."""
        ...

    def read_named(self, name: str) -> tuple[str | None, int]:
        """The provider's session under the name and its version; `(None, 0)` when there is none."""
        ...

    def keep_named(self, name: str, provider_session_id: str, seen: int) -> int | None:
        """The new version, or `None` when it is no longer at `seen`. Raises: ClaimLost."""
        ...


class Session:
    """
    One conversation with a provider. A context manager: leaving it completes the session, an exception fails it.

    `provider_session_id` and `status` are those of an earlier attempt where there was one.
    """

    def __init__(
        self, kept: SessionStore, view: SessionView, make_finding: Callable[..., Finding], artifact_path: str | None
    ) -> None:
        self._kept, self._make_finding = kept, make_finding
        self.id, self.role, self.status = view.id, view.role, view.status
        self.provider_session_id, self.outcome = view.provider_session_id, view.outcome
        self.artifact_path = artifact_path if artifact_path is not None else view.artifact_path
        #: How many of its findings block; starts at zero with each attempt.
        self.blocking_count = 0

    def started(self, provider_session_id: str) -> None:
        """Keep the provider's identifier now, before anything is paid for. Raises: ClaimLost, InputError."""
        self.provider_session_id = check_text("provider_session_id", provider_session_id)
        self._note("started")

    def finding(self, *, severity: str, title: str, blocking: bool = False, **where: Any) -> Finding:
        """As `ctx.finding`, of this session; a `blocking` one is counted."""
        found = self._make_finding(severity=severity, title=title, session=self, **where)
        self.blocking_count += blocking
        return found

    def __enter__(self) -> Self:
        if self.status != "started":
            self._note("started")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self._note("completed")
        elif isinstance(error, Exception):
            self.outcome = self.outcome or kind_of(error)
            self._note("failed")

    def _note(self, status: str) -> None:
        for name in ("outcome", "artifact_path"):
            if (value := getattr(self, name)) is not None:
                check_text(name, value)
        if self.blocking_count < 0:
            raise InputError("blocking_count", "is below zero")
        state = SessionState(status, self.provider_session_id, self.outcome, self.artifact_path, self.blocking_count)
        self._kept.note_session(self.role, state)
        self.status = status

    def __repr__(self) -> str:
        return f"<session {self.role}: {self.status}>"


class NamedSession:
    """A provider's session that outlives the run, kept under a name that is unique in the project."""

    def __init__(self, kept: SessionStore, name: str) -> None:
        self.name, self._kept = check_text("name", name), kept
        self.provider_session_id, self.version = kept.read_named(name)

    def keep(self, provider_session_id: str) -> None:
        """
        Keep another provider's session under the name, for the next run.

        Raises: NamedSessionMoved when another attempt has kept one since this was read (nothing is written),
        ClaimLost, InputError.
        """
        check_text("provider_session_id", provider_session_id)
        found = self._kept.keep_named(self.name, provider_session_id, self.version)
        if found is None:
            raise NamedSessionMoved(self.name, self.version)
        self.provider_session_id, self.version = provider_session_id, found

    def __repr__(self) -> str:
        return f"<named session {self.name}, version {self.version}>"
