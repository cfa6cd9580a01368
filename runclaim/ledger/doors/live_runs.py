"""
live_runs: what of a project is still to be done, for a release that asks whether it can do it.

Only reads, one question a statement. Runs are counted where they are, so that a long backlog is one row for each of
its forms; inputs come in pages by the time the runs were enqueued.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, bindparam, case, func, literal, literal_column, select, tuple_

from runclaim.ledger.fence import in_state, is_live_in
from runclaim.models import actions, runs, schedules
from runclaim.sql.clock import Instant, now, shifted
from runclaim.sql.rowset import Id, pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

#: What counts as soon, in seconds.
SOON: Final = 3600.0
_project: Final = bindparam("its_project", type_=Text())
_is_live: Final = is_live_in(_project)
#: Those that wait for a signal or for a person start at no time that is known.
_moves_by_itself: Final = in_state(RunState.QUEUED, RunState.RUNNING)
_is_soon: Final = and_(_moves_by_itself, runs.c.available_at <= shifted(now(), literal(SOON)))
_COUNTED: Final = (
    select(
        runs.c.flow,
        runs.c.phases,
        runs.c.cursor,
        func.count().label("many"),
        func.sum(case((_is_soon, 1), else_=0)).label("soon"),
        func.min(case((_moves_by_itself, runs.c.available_at))).label("earliest"),
    )
    .where(_is_live)
    .group_by(runs.c.flow, runs.c.phases, runs.c.cursor)
)
_flows: Final = rowset("named", flow=Text())
_place: Final = tuple_(runs.c.enqueued_at, runs.c.id)
_after: Final = tuple_(bindparam("after_at", type_=Instant()), bindparam("after_id", type_=Id()))
_INPUTS: Final = (
    select(runs.c.id, runs.c.flow, runs.c.input, runs.c.enqueued_at)
    .where(_is_live, runs.c.flow.in_(select(_flows.c.flow)))
    .order_by(runs.c.enqueued_at, runs.c.id)
    .limit(bindparam("at_most"))
)
_UNSENT: Final = (
    select(actions.c.kind, runs.c.flow, func.count().label("many"), func.min(actions.c.available_at).label("earliest"))
    .join_from(actions, runs, actions.c.run_id == runs.c.id)
    # In the words of the index that serves it.
    .where(actions.c.state.in_([literal_column("'planned'"), literal_column("'sending'")]), runs.c.project == _project)
    .group_by(actions.c.kind, runs.c.flow)
)
_SCHEDULED: Final = (
    select(schedules.c.name, schedules.c.flow, schedules.c.next_at)
    .where(schedules.c.project == _project)
    .order_by(schedules.c.name)
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many live runs of a flow are pinned to these phases, with that many of them complete."""

    flow: str
    phases: tuple[str, ...]
    cursor: int
    many: int
    #: Those that are due by themselves within `SOON`.
    soon: int
    #: When the first one is due by itself; `None` where all wait for a signal or a person.
    earliest: datetime | None


@dataclass(frozen=True, slots=True)
class RecordedInput:
    """What a live run was enqueued with."""

    run_id: str
    flow: str
    input: Any
    enqueued_at: datetime


@dataclass(frozen=True, slots=True)
class Unsent:
    """How many actions of a kind, planned by runs of a flow, wait to be sent, and when the first one is due."""

    kind: str
    flow: str
    many: int
    earliest: datetime


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A schedule, and the flow whose runs it makes."""

    name: str
    flow: str
    next_at: datetime | None


def backlogs(conn: Connection, project: str) -> list[Backlog]:
    """The live runs of a project, counted by flow, phases and cursor."""
    found = conn.execute(_COUNTED, {"its_project": project})
    return [Backlog(row.flow, tuple(row.phases), row.cursor, row.many, int(row.soon), row.earliest) for row in found]


def recorded_inputs(
    conn: Connection, project: str, flows: Collection[str], *, after: RecordedInput | None, limit: int
) -> list[RecordedInput]:
    """The next `limit` live runs of these flows behind `after`, in the order in which they were enqueued."""
    page = _INPUTS if after is None else _INPUTS.where(_place > _after)
    place = {} if after is None else {"after_at": after.enqueued_at, "after_id": after.run_id}
    values = {"its_project": project, "named": pack({"flow": each} for each in flows), "at_most": limit} | place
    return [RecordedInput(*row) for row in conn.execute(page, values)]


def unsent_actions(conn: Connection, project: str) -> list[Unsent]:
    """The actions that wait to be sent, by kind and flow. Runs that have ended may have some."""
    return [Unsent(*row) for row in conn.execute(_UNSENT, {"its_project": project})]


def scheduled(conn: Connection, project: str) -> list[Scheduled]:
    """Every schedule of a project, by name."""
    return [Scheduled(*row) for row in conn.execute(_SCHEDULED, {"its_project": project})]
