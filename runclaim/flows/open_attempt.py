"""
An open attempt: a body runs while the ledger is away, because its flow was declared to fail open.

It has no claim. What it finds and plans is kept with its result; what only the ledger can give or take ends it, and
the run waits for the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from runclaim.errors import LedgerNeeded, Released
from runclaim.flows.attempt import Attempt
from runclaim.flows.context import Context
from runclaim.flows.records import Records
from runclaim.flows.resolving import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.attempt import Ended
    from runclaim.flows.flow import Flow
    from runclaim.flows.phase import Phase
    from runclaim.ledger.claim import Claim


class OpenContext(Context[Any]):
    """The context of an open attempt; `refuse` raises for what only the ledger can take."""

    def __init__(self, refuse: Callable[[str], NoReturn], **fields: Any) -> None:
        super().__init__(**fields)
        self._refuse = refuse

    def in_completion(self, write: Callable[[Any], object]) -> None:  # noqa: ARG002 - a function cannot wait in a file
        """Raises: LedgerNeeded."""
        self._refuse("ctx.in_completion")


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


class OpenAttempt(Attempt):
    """A body without a claim; `claim` says what the claim would have been."""

    def __init__(self, claim: Claim, *, flow: Flow[Any], phase: Phase[Any, Any], stopping: Callable[[], bool]) -> None:
        self.claim, self.flow, self.phase = claim, flow, phase
        self._stopping = stopping
        self._notes = _Refusing(claim)
        self.secrets = Secrets(flow.resolvers)

    def run(self) -> Ended:
        """
        Run the body once.

        Raises: LedgerNeeded when it asked for what only the ledger has, also when it has caught that error: its
        result would lack what was refused.
        """
        ended = super().run()
        if self._notes.refused is not None:
            raise self._notes.refused
        return ended

    def _context(self) -> OpenContext:
        claim, refuse = self.claim, self._notes.refuse
        return OpenContext(
            refuse,
            run_id=claim.run_id,
            key=claim.key,
            subject=claim.subject,
            phase=claim.phase,
            attempt=claim.attempt,
            input=self.flow.input_type.load(claim.input),
            results=lambda: refuse("ctx.result"),
            check=self._check,
            records=Records(claim.run_id, claim.phase, self.flow.actions),
            notes=self._notes,
            on=self.phase.options.on,
            signal=lambda name: refuse(f"the signal {name!r}"),
            secret=self.secrets.get,
        )

    def _check(self) -> None:
        if self._stopping():
            raise Released(self.claim.run_id, self.claim.phase, self.claim.fence, "the worker shuts down")
