"""What a phase's body is given: its input, earlier results, and the ways to write with the completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from runclaim.flows.body.act import Acts, act
from runclaim.flows.body.output_ref import check_output_ref
from runclaim.flows.body.sessions import NamedSession, SessionStore
from runclaim.flows.body.sessions import Session as ProviderSession
from runclaim.keys import check_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Session

    from runclaim.flows.body.drafts import Drafts, Finding

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)


class RecordedPhase(Protocol[ResultT_co]):
    """A phase, as far as its recorded result goes."""

    @property
    def name(self) -> str:
        """Its name in the flow."""
        ...

    def load_result(self, recorded: Any) -> ResultT_co:
        """What its body returned, as the type that it declares. Raises: InputError."""
        ...


class BodyWrites(SessionStore, Acts, Protocol):
    """What a body writes while it runs: the ledger under its claim, or a test's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDescription:
    """Which attempt of which phase it is."""

    run_id: str
    #: What the run's idempotency keys are made of.
    identity: str
    key: str
    subject: str | None
    phase: str
    attempt: int
    #: The signal that its phase waits for.
    waits_for: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where an attempt reads its run's results, signals and secrets, and whether it still counts."""

    results: Callable[[], Mapping[str, Any]]
    signal: Callable[[str], tuple[Any] | None]
    secret: Callable[[str], str]
    check: Callable[[], None]


class Context(Generic[InputT]):
    """
    One attempt of one phase.

    The body runs with no transaction open. What it wants to write with the completion it hands over with
    `in_completion`; what it returns is recorded as the phase's result.
    """

    def __init__(
        self,
        attempt: AttemptDescription,
        input: InputT,  # noqa: A002 - the word that users read
        sources: Sources,
        *,
        writes: BodyWrites,
        records: Drafts,
    ) -> None:
        self.run_id, self.key, self.subject = attempt.run_id, attempt.key, attempt.subject
        self.phase, self.attempt = attempt.phase, attempt.attempt
        self.input = input
        self._description, self._sources, self._writes = attempt, sources, writes
        self.completions: list[Callable[[Session], object]] = []
        self.records = records

    @property
    def idempotency_key(self) -> str:
        """
        The same text at every attempt of this phase: for calls to services that take an idempotency key.

        Where the flow fails open it is made of the run's key, the same with the ledger and without.
        """
        return f"{self._description.identity}:{self.phase}"

    def result(self, phase: RecordedPhase[ResultT]) -> ResultT:
        """What an earlier phase of this run returned. Raises: KeyError when it is not complete."""
        results = self._sources.results()
        if phase.name not in results:
            raise KeyError(f"phase {phase.name} of this run is not complete; {self.phase} does not run after it")
        return phase.load_result(results[phase.name])

    @property
    def signal(self) -> Any:
        """What the signal that this phase waits for carried. Raises: KeyError in a phase that waits for none."""
        if (name := self._description.waits_for) is None:
            raise KeyError(
                f"phase {self.phase} does not wait for a signal; declare it with on=…, or name one in ctx.signal_of"
            )
        return self.signal_of(name)

    def signal_of(self, name: str) -> Any:
        """What the first signal of that name carried. Raises: KeyError when this run has received none."""
        found = self._sources.signal(name)
        if found is None:
            raise KeyError(f"this run has received no signal {name}")
        return found[0]

    def in_completion(self, write: Callable[[Session], object]) -> None:
        """
        Hand over rows: `write(session)` runs in the transaction that completes this phase.

        All functions run in order; their rows commit with the completion or not at all. `write` may run again
        when the database asks for a retry, so it writes to that session only. When it raises, the attempt fails.
        """
        if not callable(write):
            raise TypeError(f"in_completion takes a function of a session, not {write!r:.40}; pass a lambda")
        self.completions.append(write)

    def finding(
        self,
        *,
        severity: str,
        title: str,
        body: str | None = None,
        path: str | None = None,
        line: int | None = None,
        session: ProviderSession | None = None,
    ) -> Finding:
        """
        Record something that this phase, or a session of it, has found; written with the completion.

        `severity` is a word of yours, `line` counts from 1. Raises: InputError that names what does not fit.
        """
        session_id = None if session is None else session.id
        return self.records.finding(
            severity=severity, title=title, body=body, path=path, line=line, session_id=session_id
        )

    def plan_action(self, kind: str, payload: Any, *, name: str | None = None, finding: Finding | None = None) -> str:
        """
        Plan a call to the outside world: it exists once this phase is complete, and is sent after it.

        `kind` is declared with `@runs.action`, `payload` is JSON. `name` tells the actions of this phase apart; without
        one they are numbered. Returns: the idempotency key, the same at every send. Raises: InputError.
        """
        return self.records.plan_action(kind, payload, name=name, finding=finding)

    def output_ref(self, url: str) -> None:
        """
        Say where the output of this phase lies, such as an artefact or a log that is too large for a result.

        `url` has any scheme and at most 2 kB; the last call counts. It is recorded with the completion and shown with
        the run. Raises: InputError, including for a URL that holds a password.
        """
        self.records.output_ref = check_output_ref(url)

    def act(
        self,
        name: str,
        call: Callable[[str], Any],
        *,
        lookup: Callable[[str], Any] | None = None,
        idempotent: bool = False,
    ) -> Any:
        """
        Make a call now whose answer this body needs; every later attempt is given the same answer.

        `call(idempotency_key)` returns JSON. After a crash during the call, `lookup(idempotency_key)` is asked for
        the answer first; `idempotent=True` says that the other side does nothing twice for one key; with neither the
        run is blocked. Raise `Retry` in `call` for what was surely not sent. Raises: Blocked, ClaimLost, InputError.
        """
        key = f"{self.idempotency_key}:{name}"
        return act(self._writes, name, call, key=key, lookup=lookup, idempotent=idempotent)

    def session(self, role: str, *, artifact_path: str | None = None) -> ProviderSession:
        """
        The conversation with a provider in this role: `with ctx.session("security") as session`.

        Written at once; an attempt after a crash is given the one that was started. Raises: ClaimLost, InputError.
        """
        view = self._writes.open_session(check_text("role", role))
        return ProviderSession(self._writes, view, self.finding, artifact_path)

    def named_session(self, name: str) -> NamedSession:
        """A provider's session kept under a name, from run to run. Raises: InputError."""
        return NamedSession(self._writes, name)

    def check(self) -> None:
        """
        Return only while this attempt still counts. Cheap: asks the ledger at most once a second.

        Raises: ClaimLost (Canceled, Released) when the run is canceled or superseded, the claim is lost, or the
        worker shuts down. Let it pass through: runclaim does the rest.
        """
        self._sources.check()

    def secret(self, reference: str) -> str:
        """
        The value that a reference such as `secret:env:NAME` leads to, looked up again at each call.

        It is stored nowhere by runclaim, and redacted from this attempt's error. Raises: SecretUnavailable, and what
        a resolver of the application raises.
        """
        return self._sources.secret(reference)

    def __repr__(self) -> str:
        return f"<{self.phase} of {self.key}, attempt {self.attempt}>"
