"""A phase: one durable unit of a flow, and how its attempts are bounded."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from runclaim.errors import DeclarationError
from runclaim.flows.declare.description import PhaseDescription
from runclaim.flows.declare.results import ResultType
from runclaim.keys import check_name
from runclaim.retries import LONGEST, Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.config import Config
    from runclaim.flows.body.context import Context

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")

_MOST_ATTEMPTS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseOptions:
    """How a phase runs. `None` takes the application's setting."""

    #: Starts of the body, whatever ended them. A resume or a retry starts a new count.
    max_attempts: int = 5
    #: How many of those may end with a dead or stalled worker before the run fails; `None`: all of them.
    max_losses: int | None = None
    backoff: Backoff = field(default_factory=Backoff)
    lease: timedelta | None = None
    max_duration: timedelta | None = None
    #: The Celery queue; `None` leaves it to Celery's routes.
    queue: str | None = None
    #: The signal without which the phase does not start.
    on: str | None = None
    #: Its body may safely run again from its start, even at the same time as another.
    idempotent: bool = False

    def __post_init__(self) -> None:
        for name in ("max_attempts", "max_losses"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and 1 <= value <= _MOST_ATTEMPTS):
                raise DeclarationError(
                    f"{name} must be a number from 1 (the first start counts) to {_MOST_ATTEMPTS}, not {value!r}"
                )
        if not isinstance(self.idempotent, bool):
            raise DeclarationError(f"idempotent must be True or False, not {self.idempotent!r}")
        if not isinstance(self.backoff, Backoff):
            raise DeclarationError(f"backoff must be a Backoff(first=…, factor=…, ceiling=…), not {self.backoff!r}")
        if self.queue is not None and not (isinstance(self.queue, str) and self.queue and self.queue.isprintable()):
            raise DeclarationError(f"queue must be the name of a Celery queue, not {self.queue!r}")
        if self.on is not None:
            if not isinstance(self.on, str):
                raise DeclarationError(f"on must be the name of a signal, such as 'approved', not {self.on!r}")
            check_name("signal", self.on)
        for name in ("lease", "max_duration"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, timedelta) and timedelta(0) < value <= LONGEST):
                raise DeclarationError(f"{name} must be a timedelta greater than zero, not {value!r}")

    def described(self, name: str, config: Config) -> PhaseDescription:
        """A phase of that name with these options, and with the bounds that are in force under the settings."""
        return PhaseDescription(
            name=name,
            queue=self.queue,
            on=self.on,
            max_attempts=self.max_attempts,
            max_losses=self.max_losses or self.max_attempts,
            lease=self.lease_under(config),
            max_duration=self.max_duration_under(config),
            backoff=self.backoff,
        )

    def lease_under(self, config: Config) -> timedelta:
        """How long a claim of the phase is safe without a heartbeat."""
        return self.lease or config.lease

    def max_duration_under(self, config: Config) -> timedelta:
        """When a claim of the phase ends even with a heartbeat."""
        return self.max_duration or config.max_duration


class Phase(Generic[InputT, ResultT]):
    """A declared phase. Calling it calls the body, so tests can run it with a context of their own."""

    def __init__(
        self, body: Callable[[Context[InputT]], ResultT], *, flow: str, position: int, name: str, options: PhaseOptions
    ) -> None:
        self.name = check_name("phase", name)
        _check_body(f"{flow}.{name}", body)
        self.flow, self.position, self.options, self.body = flow, position, options, body
        self.result_type = ResultType(body, phase=f"{flow}.{name}")
        self.__doc__ = body.__doc__
        #: What an error of the body means; the code that runs phases may have its own exceptions for some of them.
        self.meaning: Callable[[Exception], Exception] = lambda error: error

    @property
    def task_name(self) -> str:
        """The name of the phase's Celery task."""
        return f"{self.flow}.{self.name}"

    @property
    def max_losses(self) -> int:
        """The budget of dead and stalled workers."""
        return self.options.max_losses or self.options.max_attempts

    def described(self, config: Config) -> PhaseDescription:
        """What the phase is under these settings."""
        return self.options.described(self.name, config)

    def load_result(self, recorded: Any) -> ResultT:
        """A recorded result as the type that the body declares. Raises: InputError when that has changed since."""
        loaded: ResultT = self.result_type.load(recorded)
        return loaded

    def __call__(self, ctx: Context[InputT]) -> ResultT:
        """Run the body once, with nothing recorded."""
        return self.body(ctx)

    def __repr__(self) -> str:
        return f"<phase {self.task_name}>"


def refuse_fail_open(phase: Phase[Any, Any]) -> None:
    """Raises: DeclarationError when a flow with this phase could do harm, or do nothing, while the ledger is away."""
    if not phase.options.idempotent:
        raise DeclarationError(
            f"phase {phase.task_name} is not declared idempotent, and flow {phase.flow} fails open: its body may run"
            " without a claim. Write @flow.phase(idempotent=True) if that is safe, or leave out fail_open"
        )
    if phase.position == 0 and phase.options.on is not None:
        raise DeclarationError(
            f"phase {phase.task_name} waits for a signal, which comes through the ledger; flow {phase.flow} cannot"
            " fail open before it"
        )


def name_of(body: Any) -> str:
    """The name of a body. Raises: DeclarationError when it has none that a phase could take."""
    found = getattr(body, "__name__", "<no name>")
    if found.startswith("<"):
        raise DeclarationError(
            f"a phase needs a name: write @flow.phase above `def plan(ctx)`, or give name=… ({body!r})"
        )
    return str(found)


def _check_body(phase: str, body: Any) -> None:
    if not callable(body):
        raise DeclarationError(
            f"phase {phase} must be a function of its context, such as `def plan(ctx)`, not {body!r}"
        )
    if inspect.iscoroutinefunction(body):
        raise DeclarationError(
            f"phase {phase} is async, but Celery calls plain functions; write def, and await inside asyncio.run"
        )
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise DeclarationError(f"phase {phase} yields, so it has no result; return a list")
    try:
        inspect.signature(body).bind(None)
    except TypeError:
        name = phase.rpartition(".")[2]
        raise DeclarationError(f"phase {phase} must take one argument, its context: `def {name}(ctx)`") from None
    except ValueError:
        pass  # a callable without a signature
