"""A phase: one durable unit of a flow, and how its attempts are bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from runclaim.errors import DeclarationError
from runclaim.flows.results import ResultType
from runclaim.keys import check_name
from runclaim.retries import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.context import Context

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseOptions:
    """How a phase runs. `None` takes the application's setting."""

    #: Starts of the body, whatever ended them. A resume or a retry begins to count anew.
    max_attempts: int = 5
    #: How many of those may end with a dead or stalled worker before the run fails; `None`: all of them.
    max_losses: int | None = None
    backoff: Backoff = field(default_factory=Backoff)
    lease: timedelta | None = None
    max_duration: timedelta | None = None
    #: The Celery queue; `None` leaves it to Celery's routes.
    queue: str | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or (self.max_losses is not None and self.max_losses < 1):
            raise DeclarationError("max_attempts and max_losses are at least 1: the first start counts")
        for name in ("lease", "max_duration"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, timedelta) or value <= timedelta(0)):
                raise DeclarationError(f"{name} is a timedelta longer than nothing, not {value!r}")


class Phase(Generic[InputT, ResultT]):
    """A declared phase. Calling it calls the body, so tests can run it with a context of their own."""

    def __init__(
        self, body: Callable[[Context[InputT]], ResultT], *, flow: str, position: int, name: str, options: PhaseOptions
    ) -> None:
        self.name = check_name("phase", name)
        self.flow, self.position, self.options, self.body = flow, position, options, body
        self.result_type = ResultType(body, phase=f"{flow}.{name}")
        self.__doc__ = body.__doc__

    @property
    def task_name(self) -> str:
        """The name of the phase's Celery task."""
        return f"{self.flow}.{self.name}"

    @property
    def max_losses(self) -> int:
        """The budget of dead and stalled workers."""
        return self.options.max_losses or self.options.max_attempts

    def __call__(self, ctx: Context[InputT]) -> ResultT:
        """Run the body once, with nothing recorded."""
        return self.body(ctx)

    def __repr__(self) -> str:
        return f"<phase {self.task_name}>"
