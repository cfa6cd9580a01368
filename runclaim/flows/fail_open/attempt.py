"""
An open attempt: a body runs while the ledger is away, because its flow was declared to fail open.

It has no claim. What it finds and plans is kept with its result; what only the ledger can give or take ends it, and
the run waits for the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from runclaim.errors import LedgerNeeded, Released
from runclaim.flows.body.context import Context
from runclaim.flows.run.attempt import Attempt, secrets_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.run.ending import Ended
    from runclaim.ledger.fence import Claim


class _Refusing:
    """What a body would write while it runs."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self.refused: LedgerNeeded | None = None

    def refuse(self, what: str) -> NoReturn:
        self.refused = LedgerNeeded(self._claim.run_id, self._claim.phase, what)
        raise self.refused

    def open_session(self, role: str) -> NoReturn:
        self.refuse(f"ctx.session({role!r})")

    def note_session(self, role: str, _state: object) -> NoReturn:
        self.refuse(f"ctx.session({role!r})")

    def read_named(self, name: str) -> NoReturn:
        self.refuse(f"ctx.named_session({name!r})")

    def keep_named(self, name: str, _provider_session_id: str, _seen: int) -> NoReturn:
        self.refuse(f"ctx.named_session({name!r})")

    def begin_act(self, name: str) -> NoReturn:
        self.refuse(f"ctx.act({name!r})")

    def forget_act(self, name: str) -> NoReturn:
        self.refuse(f"ctx.act({name!r})")

    def answer_act(self, name: str, _answer: object) -> NoReturn:
        self.refuse(f"ctx.act({name!r})")


class OpenContext(Context[Any]):
    """The context of an open attempt; it refuses what only the ledger can take."""

    _writes: _Refusing

    def in_completion(self, write: Callable[[Any], object]) -> None:  # noqa: ARG002 - a function cannot wait in a file
        """Raises: LedgerNeeded."""
        self._writes.refuse("ctx.in_completion")


class OpenAttempt(Attempt):
    """A body without a claim; `claim` says what the claim would have been."""

    context_type = OpenContext

    def __init__(self, claim: Claim, *, flow: DeclaredFlow[Any], stopping: Callable[[], bool]) -> None:
        self.claim, self.flow, self.phase = claim, flow, flow.phases[claim.phase]
        self._stopping = stopping
        self._refusing = _Refusing(claim)
        self.secrets = secrets_of(flow, claim)

    def run(self) -> Ended:
        """
        Run the body once.

        Raises: LedgerNeeded when it asked for what only the ledger has, even if it has caught that error: its
        result would lack what was refused.
        """
        ended = super().run()
        if self._refusing.refused is not None:
            raise self._refusing.refused
        return ended

    def _results(self) -> NoReturn:
        self._refusing.refuse("ctx.result")

    def _check(self) -> Callable[[], None]:
        return self._stop

    def _writes(self) -> _Refusing:
        return self._refusing

    def _signal(self, name: str) -> NoReturn:
        self._refusing.refuse(f"the signal {name!r}")

    def _stop(self) -> None:
        if self._stopping():
            raise Released(self.claim.run_id, self.claim.phase, self.claim.fence, "the worker is shutting down")
