"""
gauges: the current state of the ledger, for monitoring.

Each statement reads live rows only, by a partial index: none depends on how much history there is. All times are the
database's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import case, func, select

from runclaim.ledger.actions.plan import action_state
from runclaim.ledger.fence import in_state, state
from runclaim.ledger.listeners.turns import BEHIND
from runclaim.ledger.listeners.untold import how_many_untold
from runclaim.models import actions, listeners, runs
from runclaim.sql.clock import now
from runclaim.states import RunState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

_clock: Final[Any] = select(now()).scalar_subquery()


def _many(which: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count(case((which, 1)))


_due: Final = runs.c.available_at <= _clock
_QUEUED: Final = (
    select(
        runs.c.flow,
        runs.c.queue,
        func.count(),
        _many(_due),
        func.min(case((_due, runs.c.available_at))),
        _clock.label("clock"),
    )
    .where(in_state(RunState.QUEUED), runs.c.dispatch_due_at.is_not(None))
    .group_by(runs.c.flow, runs.c.queue)
)
_RUNNING: Final = (
    select(runs.c.flow, func.count(), _many(runs.c.lease_expires_at <= _clock))
    .where(in_state(RunState.RUNNING), runs.c.deadline_at.is_not(None))
    .group_by(runs.c.flow)
)
_STALLED: Final = (
    select(runs.c.state, runs.c.flow, func.count())
    .where(runs.c.state.in_([state(RunState.WAITING), state(RunState.BLOCKED)]))
    .group_by(runs.c.state, runs.c.flow)
)
_OPEN_ACTIONS: Final = (
    select(actions.c.kind, actions.c.state, func.count())
    .where(actions.c.state.in_([action_state("planned"), action_state("sending")]), actions.c.available_at.is_not(None))
    .group_by(actions.c.kind, actions.c.state)
)
_UNKNOWN_ACTIONS: Final = (
    select(actions.c.kind, func.count()).where(actions.c.state == action_state("unknown")).group_by(actions.c.kind)
)
_LISTENERS: Final = select(listeners.c.name, BEHIND, how_many_untold("waiting"))


@dataclass(frozen=True, slots=True)
class Queued:
    """The queued runs of a flow and a queue: all, those that are due, and since when the oldest of these waits."""

    flow: str
    queue: str | None
    many: int
    due: int
    oldest: datetime | None
    clock: datetime

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest that is due has waited; 0 when none is."""
        return 0.0 if self.oldest is None else max(0.0, (self.clock - self.oldest).total_seconds())


@dataclass(frozen=True, slots=True)
class Gauges:
    """The state of the ledger at one moment."""

    queued: list[Queued]
    #: flow → how many are running, and how many of their leases have lapsed and are not rescued yet.
    running: dict[str, tuple[int, int]]
    #: (state, flow) → how many wait for a signal or for a person.
    stalled: dict[tuple[str, str], int]
    #: (kind, state) → how many actions are planned, being sent, or unknown.
    actions: dict[tuple[str, str], int]
    #: listener → how many events it is behind at most, and how many were set aside for it.
    listeners: dict[str, tuple[int, int]]


def gauges(conn: Connection) -> Gauges:
    """Read them all; in one transaction, at one moment each."""
    open_actions = {(kind, its): many for kind, its, many in conn.execute(_OPEN_ACTIONS)}
    unknown = {(kind, "unknown"): many for kind, many in conn.execute(_UNKNOWN_ACTIONS)}
    return Gauges(
        queued=[Queued(*row) for row in conn.execute(_QUEUED)],
        running={flow: (many, lapsed) for flow, many, lapsed in conn.execute(_RUNNING)},
        stalled={(its, flow): many for its, flow, many in conn.execute(_STALLED)},
        actions=open_actions | unknown,
        listeners={name: (behind, aside) for name, behind, aside in conn.execute(_LISTENERS)},
    )
