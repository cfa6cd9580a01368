"""read: what the ledger knows of a run. No verb decides by what is read here; guards sit in the UPDATEs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BindParameter, bindparam, func, select

from runclaim.ledger.history.erased import is_erased
from runclaim.ledger.journal import shown_data
from runclaim.ledger.priority import requested
from runclaim.models import events, phase_results, runs, signals
from runclaim.sql.rowset import Id, as_id, pack, rowset
from runclaim.states import PhaseStatus, RunState, phase_statuses

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

    from runclaim.events import EventType

_its_id: Final[BindParameter[str]] = bindparam("its_id", type_=Id())
_RUN: Final = select(runs).where(runs.c.id == _its_id)
_STANDING: Final = select(runs.c.state, runs.c.fence, runs.c.owner, runs.c.cancel_requested_at.is_not(None)).where(
    runs.c.id == _its_id
)
_RESULTS: Final = (
    select(phase_results.c.phase, phase_results.c.result)
    .where(phase_results.c.run_id == _its_id)
    .order_by(phase_results.c.position)
)
_OUTPUT_REFS: Final = (
    select(phase_results.c.phase, phase_results.c.output_ref)
    .where(phase_results.c.run_id == _its_id, phase_results.c.output_ref.is_not(None))
    .order_by(phase_results.c.position)
)
_SIGNAL: Final = (
    select(signals.c.payload)
    .where(signals.c.run_id == _its_id, signals.c.name == bindparam("its_name"))
    .order_by(signals.c.received_at)
    .limit(1)
)
_EVENTS: Final = select(events).where(events.c.run_id == _its_id).order_by(events.c.id)
_SETTLED: Final = (
    select(runs.c.state)
    .join_from(runs, events, events.c.run_id == runs.c.id)
    .where(runs.c.id == _its_id, events.c.fence == bindparam("its_fence"), events.c.type == bindparam("its_type"))
)
_named: Final = rowset("named", run_id=Id())
_STATES: Final = select(runs.c.id, runs.c.state).where(runs.c.id == _named.c.run_id)
_INPUTS: Final = select(
    runs.c.id, runs.c.project, runs.c.subject, runs.c.input.label("value"), runs.c.headers, runs.c.rerun
).where(runs.c.id == _named.c.run_id)
_COUNTS: Final = select(runs.c.flow, runs.c.state, func.count()).group_by(runs.c.flow, runs.c.state)


@dataclass(frozen=True, slots=True)
class Standing:
    """Who may move a run right now."""

    state: RunState
    fence: int
    owner: str | None
    cancel_requested: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """A run without its input and results. `phases` maps each phase in order to its status."""

    id: str
    project: str
    flow: str
    key: str
    #: Its number among the runs of its key: 0, 1, 2, …
    rerun: int
    subject: str | None
    state: RunState
    phase: str
    phases: dict[str, PhaseStatus]
    attempts: int
    priority: int | None
    fence: int
    cancel_requested: bool
    error: dict[str, Any] | None
    enqueued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    #: Where the output of the last phase that named one lies.
    output_ref: str | None
    #: When it was last changed, and last claimed.
    updated_at: datetime
    claimed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView(RunLine):
    """A run as its users see it."""

    queue: str | None
    #: The signal that a waiting run needs to continue.
    waits_for: str | None
    losses: int
    worker: str | None
    input: Any
    #: What its Celery tasks have in their headers, from its enqueuer.
    headers: dict[str, Any] | None = None
    #: The webhook's delivery that made it, and the event and action that it told of.
    delivery_id: str | None = None
    delivery_action: str | None = None

    @property
    def was_erased(self) -> bool:
        """Whether a person had erased what it held."""
        return is_erased(self.input)


@dataclass(frozen=True, slots=True)
class EventView:
    """One line of a run's journal."""

    id: int
    type: str
    phase: str | None
    attempt: int | None
    fence: int
    data: Any
    at: datetime


def standing(conn: Connection, run_id: str) -> Standing | None:
    """Who may move the run, or `None` when there is no such run."""
    row = conn.execute(_STANDING, {"its_id": run_id}).one_or_none()
    return None if row is None else Standing(RunState(row[0]), row[1], row[2], bool(row[3]))


def settled(conn: Connection, run_id: str, *, fence: int, kind: EventType) -> RunState | None:
    """
    Read back: the run's state if its claim at `fence` ended with an event of this kind, else `None`.

    Only the claim itself can have made that transition: the fence rises by one at each.
    """
    found = conn.execute(_SETTLED, {"its_id": run_id, "its_fence": fence + 1, "its_type": kind}).scalar()
    return None if found is None else RunState(found)


def run(conn: Connection, run_id: str) -> RunView | None:
    """The whole run, or `None` when there is no such run."""
    row = conn.execute(_RUN, {"its_id": run_id}).one_or_none()
    if row is None:
        return None
    values = line_values(row)
    return RunView(
        **(values | {"priority": requested(row.priority)}),
        queue=row.queue,
        waits_for=row.waits_for if values["state"] is RunState.WAITING else None,
        losses=row.losses,
        worker=row.worker,
        input=row.input,
        headers=row.headers,
        delivery_id=row.delivery_id,
        delivery_action=row.delivery_action,
    )


def line_values(row: Any) -> dict[str, Any]:
    """What a `RunLine` is made of; `priority` as the row has it."""
    state = RunState(row.state)
    return {
        "id": row.id,
        "project": row.project,
        "flow": row.flow,
        "key": row.key,
        "rerun": row.rerun,
        "subject": row.subject,
        "state": state,
        "phase": row.phase,
        "phases": phase_statuses(state, row.cursor, row.phases),
        "attempts": row.attempts,
        "priority": row.priority,
        "fence": row.fence,
        "cancel_requested": row.cancel_requested_at is not None,
        "error": row.error,
        "enqueued_at": row.enqueued_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "output_ref": row.output_ref,
        # A release that does not know the column has made the run.
        "updated_at": row.updated_at or row.finished_at or row.started_at or row.enqueued_at,
        "claimed_at": row.claimed_at,
    }


def states(conn: Connection, run_ids: Collection[str]) -> dict[str, RunState]:
    """Run id → state; a run that does not exist is missing."""
    found = conn.execute(_STATES, {"named": pack({"run_id": as_id(run_id)} for run_id in run_ids)})
    return {run_id: RunState(state) for run_id, state in found}


def inputs(conn: Connection, run_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Run id → its project, subject, input (`value`), headers and rerun; a run that does not exist is missing."""
    found = conn.execute(_INPUTS, {"named": pack({"run_id": as_id(run_id)} for run_id in run_ids)})
    return {row.id: {name: value for name, value in row._asdict().items() if name != "id"} for row in found}


def results(conn: Connection, run_id: str) -> dict[str, Any]:
    """Phase → result, for the run's complete phases in their order."""
    return dict(conn.execute(_RESULTS, {"its_id": run_id}).all())


def output_refs(conn: Connection, run_id: str) -> dict[str, str]:
    """Phase → where its output lies, for the run's complete phases that have named a place, in their order."""
    return dict(conn.execute(_OUTPUT_REFS, {"its_id": run_id}).all())


def signal(conn: Connection, run_id: str, name: str) -> tuple[Any] | None:
    """What the first signal of that name said, or `None` when the run has received none."""
    found = conn.execute(_SIGNAL, {"its_id": run_id, "its_name": name}).one_or_none()
    return None if found is None else (found.payload,)


def journal(conn: Connection, run_id: str) -> list[EventView]:
    """The run's events, oldest first."""
    return [event_view(row) for row in conn.execute(_EVENTS, {"its_id": run_id})]


def event_view(row: Any) -> EventView:
    """The event of a row that has every column of `events`."""
    return EventView(row.id, row.type, row.phase, row.attempt, row.fence, shown_data(row.data), row.at)


def counts(conn: Connection) -> dict[tuple[str, RunState], int]:
    """How many runs of each flow are in each state. Reads the whole table: for pages and tests, not for loops."""
    return {(flow, RunState(state)): many for flow, state, many in conn.execute(_COUNTS)}
