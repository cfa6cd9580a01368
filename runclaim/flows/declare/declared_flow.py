"""
A declared flow: its name, its typed input, its key and its phases, declared once at import time.

Mistakes in a declaration are refused here, before anything runs. It knows no ledger and no broker: what users hold
is `flows.flow.Flow`, which adds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, overload

from runclaim import codec
from runclaim.errors import DeclarationError
from runclaim.flows.actions.hooks import HookEvent, Hooks
from runclaim.flows.declare.description import FlowDescription
from runclaim.flows.declare.inputs import InputType
from runclaim.flows.declare.phase import Phase, PhaseOptions, name_of, refuse_fail_open
from runclaim.flows.declare.retention import Retention
from runclaim.flows.declare.run_names import Naming
from runclaim.flows.declare.secret_fields import SecretFields
from runclaim.flows.declare.secret_references import BUILT_IN
from runclaim.keys import RunKey, Template, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence
    from datetime import timedelta

    from runclaim.config import Config
    from runclaim.flows.actions.action import Action
    from runclaim.flows.body.context import Context
    from runclaim.flows.declare.secret_references import Resolver
    from runclaim.retries import Backoff

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")
#: Why doors without the application refuse an input.
_ENCODED: Final = "its data is encoded, and only the application has the codec"


class OnPhase(Protocol):
    """Who is told of each declared phase: the Celery layer makes its task."""

    def __call__(self, flow: DeclaredFlow[Any], phase: Phase[Any, Any]) -> None:
        """A phase was declared."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions(Generic[InputT]):
    """What a flow declares in addition to its name, its input and its phases; see `Runclaim.flow`."""

    key: str | Callable[[InputT], str]
    subject: str | Callable[[InputT], str] | None = None
    retention: Retention = field(default_factory=Retention)
    fail_open: bool = False
    allow_secrets: bool | Sequence[str] = False
    secrets: Mapping[str, str | Sequence[str]] = field(default_factory=dict)


class DeclaredFlow(Generic[InputT]):
    """A declared sequence of phases. `actions` are those of its application, among them the hooks of its flows."""

    def __init__(
        self,
        name: str,
        input_type: type[InputT],
        options: FlowOptions[InputT],
        *,
        actions: MutableMapping[str, Action],
        resolvers: Mapping[str, Resolver] = BUILT_IN,
        on_phase: OnPhase,
    ) -> None:
        self.name = check_name("flow", name)
        self.input_type = InputType(input_type)
        self.phases: dict[str, Phase[InputT, Any]] = {}
        self.retention, self.fail_open = options.retention, options.fail_open
        if self.fail_open and codec.is_used():
            raise DeclarationError(
                f"flow {name} fails open, which puts inputs into messages and files that the codec does not reach;"
                " leave out fail_open, or the codec"
            )
        fields = self.input_type.fields
        self.naming: Naming[InputT] = Naming(self.name, fields, key=options.key, subject=options.subject)
        self.secret_fields = SecretFields.declared(fields, options.allow_secrets, options.secrets)
        #: The declared actions of the application, by their kinds.
        self.actions: Mapping[str, Action] = actions
        self.hooks = Hooks(self.name, actions)
        self.resolvers, self._on_phase = resolvers, on_phase
        self._described: tuple[Config, FlowDescription] | None = None

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
            raise DeclarationError(f"a phase has no option {unknown[0]}; the options are {', '.join(known)}")
        named = chosen.pop("name", None) or name_of(body)
        if named in self.phases:
            raise DeclarationError(f"flow {self.name} already has a phase {named}; give the second another name")
        phase: Phase[InputT, ResultT] = Phase(
            body, flow=self.name, position=len(self.phases), name=named, options=PhaseOptions(**chosen)
        )
        if self.fail_open:
            refuse_fail_open(phase)
        self.phases[named], self._described = phase, None
        self._on_phase(self, phase)
        return phase

    def on_complete(self, hook: Callable[[HookEvent], object]) -> Callable[[HookEvent], object]:
        """Declare a function to call once per run and phase when it is complete. Raises: DeclarationError."""
        self._described = None
        return self.hooks.declare("on_complete", hook)

    def on_blocked(self, hook: Callable[[HookEvent], object]) -> Callable[[HookEvent], object]:
        """Declare a function to call when a run is blocked, once per run and phase. Raises: DeclarationError."""
        self._described = None
        return self.hooks.declare("on_blocked", hook)

    def on_failed(self, hook: Callable[[HookEvent], object]) -> Callable[[HookEvent], object]:
        """Declare a function to call when a run has failed, once per run and phase. Raises: DeclarationError."""
        self._described = None
        return self.hooks.declare("on_failed", hook)

    def described(self, config: Config) -> FlowDescription:
        """
        What the flow is, under these settings; the same object until a phase or a hook is added.

        Raises: DeclarationError without phases.
        """
        described = self._described
        if described is None or described[0] is not config:
            self.require_phases()
            described = self._described = (config, self._describe(config))
        return described[1]

    def require_phases(self) -> None:
        """Raises: DeclarationError when there are none: nothing could be done for a run."""
        if not self.phases:
            raise DeclarationError(f"flow {self.name} has no phases: declare one with @{self.name}.phase")

    def _describe(self, config: Config) -> FlowDescription:
        key, subject = self.naming.key, self.naming.subject
        return FlowDescription(
            name=self.name,
            phases=tuple(each.described(config) for each in self.phases.values()),
            input=self.input_type.json_schema,
            own_code=self.input_type.own_code or (_ENCODED if codec.is_used() else None),
            key=key.text if isinstance(key, Template) else None,
            subject=subject.text if isinstance(subject, Template) else None,
            has_subject=subject is not None,
            secrets=self.secret_fields,
            keep_keys=config.keep_keys,
            dispatch_after=config.dispatch_after,
            hooks={word: list(kinds) for word, kinds in self.hooks.kinds.items()},
            fail_open=self.fail_open,
        )

    def key_of(self, value: InputT) -> RunKey:
        """The run key of an input. Raises: InputError."""
        return self.naming.key_of(value)

    def subject_of(self, value: InputT) -> str | None:
        """The subject of an input, or `None` when the flow has none. Raises: InputError."""
        return self.naming.subject_of(value)

    def __repr__(self) -> str:
        return f"<flow {self.name}: {' → '.join(self.phases) or 'no phases'}>"
