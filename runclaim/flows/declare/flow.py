"""
A flow: its name, its typed input, its key and its phases, declared once at import time.

Mistakes in a declaration are refused here, before anything runs. Everything that touches a database or a
broker is reached through the application's `Ledger`, so a declared flow is cheap and safe to import.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from runclaim.errors import DeclarationError, InputError
from runclaim.flows.actions.hooks import HookEvent, Hooks
from runclaim.flows.client.options import Enqueuing, Options
from runclaim.flows.declare.inputs import InputType
from runclaim.flows.declare.phase import Phase, PhaseOptions, name_of, refuse_fail_open
from runclaim.flows.declare.retention import Retention
from runclaim.flows.declare.run_names import Naming
from runclaim.flows.declare.secret_fields import SecretFields
from runclaim.flows.declare.secret_references import BUILT_IN
from runclaim.flows.inbound.route import Route
from runclaim.keys import RunKey, check_name, key_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

    from runclaim.flows.actions.action import Action
    from runclaim.flows.body.context import Context
    from runclaim.flows.client.access import Ledger
    from runclaim.flows.client.handle import Run
    from runclaim.flows.client.options import AnyAsyncSession, AnySession
    from runclaim.flows.declare.secret_references import Resolver
    from runclaim.flows.inbound.route import Event, Routed
    from runclaim.ledger.fence import Claim
    from runclaim.retries import Backoff

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")


class OnPhase(Protocol):
    """Who is told of each declared phase: the Celery layer makes its task."""

    def __call__(self, flow: Flow[Any], phase: Phase[Any, Any]) -> None:
        """A phase was declared."""
        ...


class Flow(Generic[InputT]):
    """A declared sequence of phases. Made by `Runclaim.flow`."""

    def __init__(
        self,
        name: str,
        input_type: type[InputT],
        *,
        key: str | Callable[[InputT], str],
        subject: str | Callable[[InputT], str] | None,
        ledger: Ledger,
        on_phase: OnPhase,
        retention: Retention | None = None,
        fail_open: bool = False,
        allow_secrets: bool | Sequence[str] = False,
        secrets: Mapping[str, str | Sequence[str]] | None = None,
        resolvers: Mapping[str, Resolver] = BUILT_IN,
    ) -> None:
        self.name = check_name("flow", name)
        self.input_type = InputType(input_type)
        self.phases: dict[str, Phase[InputT, Any]] = {}
        self.retention = retention or Retention()
        self.fail_open = fail_open
        self.naming: Naming[InputT] = Naming(self.name, self.input_type.fields, key=key, subject=subject)
        self.secret_fields = SecretFields.declared(self.input_type.fields, allow_secrets, secrets or {})
        self.resolvers = resolvers
        self._ledger, self._on_phase = ledger, on_phase
        self.hooks = Hooks(self.name, ledger.actions)

    @overload
    def phase(self, body: Callable[[Context[InputT]], ResultT], /) -> Phase[InputT, ResultT]: ...

    @overload
    def phase(
        self,
        *,
        name: str | None = None,
        max_attempts: int = 5,
        max_losses: int | None = None,
        backoff: Backoff | None = None,
        lease: timedelta | None = None,
        max_duration: timedelta | None = None,
        queue: str | None = None,
        on: str | None = None,
        idempotent: bool = False,
    ) -> Callable[[Callable[[Context[InputT]], ResultT]], Phase[InputT, ResultT]]: ...

    def phase(self, *body: Any, **options: Any) -> Any:
        """
        Declare the next phase. Phases run in the order of their declarations.

        `max_attempts` bounds the starts of the body, `max_losses` those that end with a dead worker; `lease` and
        `max_duration` are `timedelta`; `queue` is a Celery queue; `on` names the signal that the phase waits for;
        `idempotent` says that its body does no harm when it runs again, or twice at once. Raises: DeclarationError.
        """
        if not body:
            return lambda found: self._declare(found, options)
        return self._declare(body[0], options)

    def _declare(self, body: Callable[[Context[InputT]], ResultT], given: dict[str, Any]) -> Phase[InputT, ResultT]:
        chosen = {label: value for label, value in given.items() if value is not None}
        known = ["name", *(field.name for field in fields(PhaseOptions))]
        if unknown := sorted(set(chosen) - set(known)):
            raise DeclarationError(f"a phase has no option {unknown[0]}; there are {', '.join(known)}")
        named = chosen.pop("name", None) or name_of(body)
        if named in self.phases:
            raise DeclarationError(f"flow {self.name} already has a phase {named}; give the second another name")
        phase: Phase[InputT, ResultT] = Phase(
            body, flow=self.name, position=len(self.phases), name=named, options=PhaseOptions(**chosen)
        )
        if self.fail_open:
            refuse_fail_open(phase)
        self.phases[named] = phase
        self._on_phase(self, phase)
        return phase

    def identity_of(self, taken: Claim, value: InputT) -> str:
        """
        What the idempotency keys of a run are made of: its id.

        Where the flow fails open, the key's own, which is the same whether the run was made with the ledger or without.
        A rerun is meant to be done again.
        """
        if not self.fail_open or taken.rerun:
            return taken.run_id
        return key_id(f"{taken.project}/{self.name}", self.naming.key_of(value))

    @property
    def actions(self) -> Mapping[str, Action]:
        """The declared actions of the application, by their kinds."""
        return self._ledger.actions

    def on_complete(self, hook: Callable[[HookEvent], object]) -> Callable[[HookEvent], object]:
        """Declare what is told when a phase of a run is complete: once a run and phase. Raises: DeclarationError."""
        return self.hooks.declare("on_complete", hook)

    def on_blocked(self, hook: Callable[[HookEvent], object]) -> Callable[[HookEvent], object]:
        """Declare what is told when a run needs a person: once a run and phase. Raises: DeclarationError."""
        return self.hooks.declare("on_blocked", hook)

    def on_failed(self, hook: Callable[[HookEvent], object]) -> Callable[[HookEvent], object]:
        """Declare what is told when a run has failed: once a run and phase. Raises: DeclarationError."""
        return self.hooks.declare("on_failed", hook)

    def key_of(self, value: InputT) -> RunKey:
        """The run key of an input. Raises: InputError."""
        return self.naming.key_of(value)

    def subject_of(self, value: InputT) -> str | None:
        """The subject of an input, or `None` when the flow has none. Raises: InputError."""
        return self.naming.subject_of(value)

    def using(
        self,
        *,
        delay: timedelta | None = None,
        priority: int | None = None,
        project: str | None = None,
        rerun: bool = False,
        run_id: str | None = None,
    ) -> Enqueuing[InputT]:
        """
        Enqueue with options: `flow.using(delay=timedelta(minutes=5)).enqueue(…)`.

        `priority` goes to the broker (0 to 9; higher first on RabbitMQ, lower first on Redis, as in Celery; without
        one `task_default_priority` holds). `rerun` makes a new run also for a key that has one, under its next number,
        and supersedes the older one. `run_id` inserts the run under that id or raises RunExists; it never finds one.
        """
        if not self.phases:
            raise DeclarationError(f"flow {self.name} has no phases: declare one with @{self.name}.phase")
        return Enqueuing(
            self, self._ledger, Options(delay=delay, priority=priority, project=project, rerun=rerun, run_id=run_id)
        )

    def enqueue(self, value: InputT | None = None, /, *, session: AnySession | None = None, **fields: Any) -> Run:
        """
        Make a run of the input, or find the run its key already has.

        Give the input as one value or by its fields. With `session` the run is made in the application's own
        transaction and published after its commit. Raises: InputError, KeyConflict, LedgerUnavailable; nothing
        is written then. A broker that does not answer is no error: the run is queued in the ledger.
        """
        return self.using().enqueue(value, session=session, **fields)

    def enqueue_many(
        self, values: Iterable[InputT | Mapping[str, Any]], *, session: AnySession | None = None
    ) -> list[Run]:
        """As `enqueue`, for many inputs in one transaction; the handles come in the order of the inputs."""
        return self.using().enqueue_many(values, session=session)

    async def aenqueue(
        self, value: InputT | None = None, /, *, session: AnyAsyncSession | None = None, **fields: Any
    ) -> Run:
        """As `enqueue`, without blocking the event loop; `session` is an AsyncSession."""
        return await self.using().aenqueue(value, session=session, **fields)

    def get(self, run_id: str) -> Run:
        """A handle on an existing run of this flow; nothing is read yet."""
        return self._ledger.handle(run_id, self)

    def find(self, key: str, *, project: str | None = None) -> Run | None:
        """
        The run of a key, given as the text that people read; `None` when there is none, or it was purged.

        Raises: InputError when the text could be the key of two runs: `"a:b" + "c"`, `"a" + "b:c"`. Use their ids.
        """
        hashes = [each.hash for each in self.naming.readings(key)]
        found = self._ledger.find(f"{project or self._ledger.config.project}/{self.name}", hashes)
        if len(found) > 1:
            raise InputError("key", f"names several runs of {self.name} ({', '.join(found)}); use the id of one")
        return self.get(found[0]) if found else None

    def route(self, event: Event[InputT]) -> Routed:
        """
        Start the phase that an outside event calls for, in the run of its input's key, which is made if need be.

        An existing run keeps the state of its phases; a phase that is active or complete is left alone; an event for
        a phase that is not reached yet is kept for it. Raises: InputError, KeyConflict, LedgerUnavailable.
        """
        return Route.of(self, event).take(self._ledger, self)

    def __repr__(self) -> str:
        return f"<flow {self.name}: {' → '.join(self.phases) or 'no phases'}>"
