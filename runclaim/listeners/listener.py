"""What happened, as a listener is told of it, and who listens to what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import DeclarationError
from runclaim.events import EventType
from runclaim.ledger.journal import shown_data
from runclaim.retries import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from runclaim.ledger.listeners.tail import Line

    #: `receiver(event)`; what it returns is dropped.
    Receiver = Callable[["Event"], object]

#: The waits after each failed attempt, as Standard Webhooks 1.0.0 has them; then the event is given up.
SCHEDULE: Final = tuple(
    timedelta(seconds=seconds) for seconds in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a run. The same event has the same `id`, however often it is told."""

    id: str
    #: `run.failed`, `phase.completed` …: the names of `runclaim.events.EventType`.
    type: str
    run_id: str
    project: str
    flow: str
    key: str
    subject: str | None
    phase: str | None
    attempt: int | None
    #: What else the journal says: the error of a phase without its traceback, who canceled; often nothing.
    data: Any
    at: datetime
    trace_context: dict[str, str] | None = None


def event_of(line: Line) -> Event:
    """The event that a line of the journal stands for."""
    data = shown_data(line.data)
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name != "traceback"}
    # With the run's own id, which no other ledger has: the number alone comes again in a new database.
    event_id = f"{line.run_id}-{line.id}"
    told = (line.run_id, line.project, line.flow, line.key, line.subject, line.phase, line.attempt, data, line.at)
    return Event(event_id, line.type, *told, line.trace_context)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told: `tell` returns when it was understood, and raises to be told again."""

    name: str
    #: Patterns of event types, such as `run.failed` or `run.*`.
    types: tuple[str, ...]
    #: Only events of these flows; `None` for all.
    flows: frozenset[str] | None
    tell: Receiver
    schedule: tuple[timedelta, ...] = SCHEDULE

    def __post_init__(self) -> None:
        for pattern in self.types:
            if not any(fnmatchcase(known, pattern) for known in EventType):
                raise DeclarationError(
                    f"there is no event {pattern}; the types are {', '.join(EventType)}, run.*, phase.*"
                )
        if not self.types:
            raise DeclarationError(f"listener {self.name} has no types; name the types of events that it listens to")
        if not all(timedelta(0) <= wait <= LONGEST for wait in self.schedule):
            raise DeclarationError(f"the waits of listener {self.name} must be from zero to {LONGEST.days} days each")

    def wants(self, line: Line) -> bool:
        """Whether it listens to this."""
        if self.flows is not None and line.flow not in self.flows:
            return False
        return any(fnmatchcase(line.type, pattern) for pattern in self.types)


class Listeners(dict[str, Listener]):
    """Those of one application, by their names."""

    def add(self, listener: Listener) -> None:
        """Declare one. Raises: DeclarationError for a name that is taken."""
        if listener.name in self:
            raise DeclarationError(f"this app already has a listener {listener.name}; give the second another name=")
        if listener.name.startswith("runclaim."):
            raise DeclarationError(f"listener {listener.name}: names that begin with runclaim. are reserved")
        self[listener.name] = listener


def chosen_flows(flow: str | Sequence[str] | None) -> frozenset[str] | None:
    """The flows of a declaration: one, several, or all."""
    return None if flow is None else frozenset([flow] if isinstance(flow, str) else flow)
