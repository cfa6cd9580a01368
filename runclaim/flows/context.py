"""What a phase's body is given: its input, earlier results, and the ways to write with the completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Session

    from runclaim.flows.phase import Phase

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")


class Context(Generic[InputT]):
    """
    One attempt of one phase.

    The body runs with no transaction open. What it wants to write with the completion it hands over with
    `in_completion`; what it returns is recorded as the phase's result.
    """

    def __init__(
        self,
        *,
        run_id: str,
        key: str,
        subject: str | None,
        phase: str,
        attempt: int,
        input: InputT,  # noqa: A002 - the word that users read
        results: Callable[[], Mapping[str, Any]],
        check: Callable[[], None],
        secret: Callable[[str], str],
    ) -> None:
        self.run_id, self.key, self.subject, self.phase, self.attempt = run_id, key, subject, phase, attempt
        self.input = input
        self._results, self._check, self._secret = results, check, secret
        self.completions: list[Callable[[Session], object]] = []

    @property
    def idempotency_key(self) -> str:
        """The same text at every attempt of this phase: for calls to services that take an idempotency key."""
        return f"{self.run_id}:{self.phase}"

    def result(self, phase: Phase[Any, ResultT]) -> ResultT:
        """What an earlier phase of this run returned. Raises: KeyError when it is not complete."""
        found = self._results()
        if phase.name not in found:
            raise KeyError(f"phase {phase.name} of this run is not complete; {self.phase} runs before it or without it")
        loaded: ResultT = phase.result_type.load(found[phase.name])
        return loaded

    def in_completion(self, write: Callable[[Session], object]) -> None:
        """
        Hand over rows: `write(session)` runs in the transaction that completes this phase.

        All functions run in order; their rows commit with the completion or not at all. `write` may run again
        when the database asks for a retry, so it writes to that session only. When it raises, the attempt fails.
        """
        if not callable(write):
            raise TypeError(f"in_completion takes a function of a session, not {write!r:.40}; hand over a lambda")
        self.completions.append(write)

    def check(self) -> None:
        """
        Go on only while this attempt still counts. Cheap: asks the ledger at most once a second.

        Raises: ClaimLost (Canceled, Released) when the run is canceled or superseded, the claim is lost, or the
        worker shuts down. Let it pass through: runclaim does the rest.
        """
        self._check()

    def secret(self, reference: str) -> str:
        """
        The value that a reference such as `secret:env:NAME` leads to, asked for anew at each call.

        It is stored nowhere by runclaim, and redacted from this attempt's error. Raises: SecretUnavailable, and what
        a resolver of the application raises.
        """
        return self._secret(reference)

    def __repr__(self) -> str:
        return f"<{self.phase} of {self.key}, attempt {self.attempt}>"
