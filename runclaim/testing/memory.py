"""What a body writes while it runs, in memory: sessions and acts as the ledger would keep them for one run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runclaim.keys import dump_json, uuid7
from runclaim.ledger.body.sessions import SessionView

if TYPE_CHECKING:
    from runclaim.ledger.body.sessions import SessionState


class Memory:
    """Stands for the ledger under the claim of one attempt."""

    def __init__(self, run_id: str, phase: str) -> None:
        self._run_id, self._phase = run_id, phase
        self.sessions: dict[str, SessionView] = {}
        self.named: dict[str, tuple[str, int]] = {}
        self.acts: dict[str, tuple[str, Any]] = {}

    def open_session(self, role: str) -> SessionView:
        """The session of this role, new or found."""
        new = SessionView(
            id=uuid7(),
            run_id=self._run_id,
            phase=self._phase,
            role=role,
            provider_session_id=None,
            status="started",
            outcome=None,
            artifact_path=None,
            blocking_count=0,
            started_at=datetime.now(UTC),
            completed_at=None,
        )
        return self.sessions.setdefault(role, new)

    def note_session(self, role: str, state: SessionState) -> None:
        """Keep what is known now."""
        self.sessions[role] = replace(
            self.sessions[role],
            status=state.status,
            provider_session_id=state.provider_session_id,
            outcome=state.outcome,
            artifact_path=state.artifact_path,
            blocking_count=state.blocking_count,
            completed_at=None if state.status == "started" else datetime.now(UTC),
        )

    def read_named(self, name: str) -> tuple[str | None, int]:
        """The provider's session under the name and its version; `(None, 0)` when there is none."""
        return self.named.get(name, (None, 0))

    def keep_named(self, name: str, provider_session_id: str, seen: int) -> int | None:
        """The new version, or `None` when it is no longer at `seen`."""
        if self.read_named(name)[1] != seen:
            return None
        self.named[name] = (provider_session_id, seen + 1)
        return seen + 1

    def begin_act(self, name: str) -> tuple[bool, str, Any]:
        """Whether it is the first, its state, its answer."""
        is_first = name not in self.acts
        return is_first, *self.acts.setdefault(name, ("sending", None))

    def forget_act(self, name: str) -> None:
        """The call was not made after all."""
        del self.acts[name]

    def answer_act(self, name: str, answer: Any) -> Any:
        """Record the answer; returns it as the ledger would give it back."""
        kept = json.loads(dump_json(f"the answer of {name}", answer))
        self.acts[name] = ("posted", kept)
        return kept
