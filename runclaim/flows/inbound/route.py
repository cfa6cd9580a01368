"""
Routing: an outside event finds or makes the run of its input's key, and starts the phase that it calls for.

One transaction, and nothing in it looks before it writes: the key decides whether there is a run, and the run's own
row whether it waits. So the same event twice, even at once, is one run and one start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from runclaim.errors import InputError
from runclaim.flows.client.enqueue import Enqueue
from runclaim.flows.client.enqueuer import Enqueuer
from runclaim.flows.client.handle import Run
from runclaim.flows.client.new_run import Options
from runclaim.flows.client.signal import Signal
from runclaim.flows.declare.phase import Phase
from runclaim.ledger.enqueue import Enqueued, enqueue
from runclaim.ledger.read import standing
from runclaim.ledger.run_keys import find_runs
from runclaim.ledger.signal import Answer, Signaled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.new_run import NewRun

InputT = TypeVar("InputT")


@dataclass(frozen=True, slots=True)
class OutsideEvent(Generic[InputT]):
    """
    Something that happened outside, and which phase of which run it calls for.

    `input` is the flow's input or its fields; it has the run's key. `phase` is a phase or its name; `None` is the
    first. `id` is the sender's, and `payload` what a phase with `on` reads as `ctx.signal`.
    """

    input: InputT | Mapping[str, Any]
    phase: Phase[InputT, Any] | str | None = None
    id: str | None = None
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Routed:
    """The run of an event, and whether this very call started the phase that the event is for."""

    run: Run
    started: bool


@dataclass(frozen=True, slots=True)
class Landed:
    """What a route wrote; true unless its signal was there before. `due` is to be published after the commit."""

    made: Enqueued
    started: bool
    due: Due | None = None
    delivered: bool = True

    def __bool__(self) -> bool:
        return self.delivered


@dataclass(frozen=True, slots=True)
class Route:
    """An event, checked: the run that it stands for, the phase it calls for, and that phase's signal."""

    new: NewRun
    phase: Phase[Any, Any] | None
    signal: Signal | None

    @classmethod
    def of(
        cls,
        access: LedgerAccess,
        flow: DeclaredFlow[InputT],
        event: OutsideEvent[InputT],
        *,
        id: str | None = None,  # noqa: A002 - an event's
    ) -> Self:
        """Nothing is read or written. `id` is for an event without one. Raises: InputError."""
        new, phase = Enqueuer(flow, access, Options()).new_run(event.input), _phase(flow, event.phase)
        if phase.options.on is None:
            return cls(new, phase, None)
        signal = Signal.checked(
            phase.options.on, event.payload, event.id or id, allow_secrets=flow.secret_fields.allowed is True
        )
        return cls(new, phase, signal)

    def work(self, conn: Connection) -> Landed:
        """Find or make the run, then deliver the signal. The caller owns the transaction and publishes after it."""
        made = enqueue(conn, [self.new])[0]
        if self.signal is None:
            return self._unsignaled(made)
        told = self.signal.deliver(conn, made.run_id, first_only=True)
        return self._landed(made, told)

    def take(self, access: LedgerAccess, flow: DeclaredFlow[Any]) -> Routed:
        """Write it in a transaction of its own, then publish."""
        landed = access.do(self)
        return Routed(Run(access, landed.made.run_id, flow, created=landed.made.created), landed.started)

    def publish(self, access: LedgerAccess, outcome: Landed) -> None:
        """Ring for a run that was enqueued or continues. Never raises for a silent broker."""
        Enqueue([self.new]).publish(access, [outcome.made])
        if outcome.due is not None:
            access.publisher.publish(access.with_inputs([outcome.due]))

    def _landed(self, made: Enqueued, told: Signaled) -> Landed:
        # Another phase may wait for the same name.
        started = told.moved and self.phase is not None and told.phase == self.phase.name
        return Landed(made, started, told.due, delivered=bool(told))

    def read_back(self, conn: Connection) -> Landed | None:
        """After an ambiguous commit: what this very call has written; `None` when that is nothing."""
        landed = self.written(conn)
        is_ours = landed is not None and (landed.made.created or (self.signal is not None and landed.delivered))
        return landed if is_ours else None

    def written(self, conn: Connection) -> Landed | None:
        """The answer of a `work` that has committed, whatever the state of its run now; `None` when its run is gone."""
        created = standing(conn, self.new.run_id) is not None
        found = [self.new.run_id] if created else find_runs(conn, self.new.namespace, [self.new.key.hash])
        if not found:
            return None
        made = Enqueued(found[0], created=created)
        if self.signal is None:
            return self._unsignaled(made)
        told = self.signal.delivered(conn, made.run_id)
        return self._landed(made, told or Signaled(Answer.DUPLICATE))

    def _unsignaled(self, made: Enqueued) -> Landed:
        starts = self.phase is not None and self.phase.position == 0
        return Landed(made, made.created and starts)


def _phase(flow: DeclaredFlow[Any], asked: Phase[Any, Any] | str | None) -> Phase[Any, Any]:
    """The phase of the flow that an event calls for. Raises: InputError."""
    if asked is None:
        return next(iter(flow.phases.values()))
    found = flow.phases.get(asked.name if isinstance(asked, Phase) else asked)
    if found is None or (isinstance(asked, Phase) and found is not asked):
        raise InputError("phase", f"{asked!r:.120} is not a phase of {flow.name}; it has {', '.join(flow.phases)}")
    return found
