"""
run_pages: the runs of a project, page by page, newest first or oldest first.

A page begins after the last run seen, never at a number. Each ended state is read by its own index range, and at most
a page of it; the live runs by one of theirs. No page depends on how much history there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, Text, and_, bindparam, func, literal, literal_column, select, tuple_, union_all

from runclaim.ledger.fence import is_live_in
from runclaim.ledger.fence import state as state_literal
from runclaim.ledger.priority import PRIORITY
from runclaim.ledger.read import RunLine, line_values
from runclaim.models import runs
from runclaim.sql.clock import Instant, from_rfc3339, rfc3339
from runclaim.sql.rowset import Id, as_id
from runclaim.states import LIVE, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.sql.base import ReadOnlyColumnCollection

#: The most runs on a page.
MOST: Final = 100
#: How much of each state is read for a page. Written out: for a limit that it does not know PostgreSQL expects a tenth
#: of the history, keeps no plan for that, and plans each page again, which takes longer than reading it.
_STEPS: Final = (26, 51, MOST + 1)
_COLUMNS: Final = (
    runs.c.id,
    runs.c.project,
    runs.c.flow,
    runs.c.key,
    runs.c.rerun,
    runs.c.subject,
    runs.c.state,
    runs.c.phase,
    runs.c.phases,
    runs.c.cursor,
    runs.c.attempts,
    PRIORITY,
    runs.c.fence,
    runs.c.cancel_requested_at,
    runs.c.error,
    runs.c.enqueued_at,
    runs.c.started_at,
    runs.c.finished_at,
    runs.c.output_ref,
    runs.c.updated_at,
    runs.c.claimed_at,
)
_STALLED: Final = frozenset({RunState.WAITING, RunState.BLOCKED})
_project: Final = bindparam("its_project", type_=Text())
_live: Final = is_live_in(_project)
_ended: Final = and_(runs.c.project == _project, runs.c.finished_at.is_not(None))
_ONE: Final = select(*_COLUMNS).where(runs.c.id == bindparam("its_id", type_=Id()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs: of one project, of a flow, in some states (none: all), enqueued from `since` to before `until`."""

    project: str
    flow: str | None = None
    states: frozenset[RunState] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    oldest_first: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Some runs, and what to give as `after` for the next ones; `None` when there are no more."""

    runs: list[RunLine]
    next_after: str | None


def list_runs(conn: Connection, wanted: RunFilter, *, after: str | None = None, limit: int = 50) -> Page:
    """
    At most `limit` (never more than 100) of the wanted runs, by the time they were enqueued.

    `after` is an earlier page's `next_after`. Raises: ValueError for anything else.
    """
    size = max(1, min(limit, MOST))
    most = next(step for step in _STEPS if step > size)
    branches = [
        select(_one_range(wanted, which, most, begins=after is None).subquery())
        for which in _ranges(wanted.states or frozenset(RunState))
    ]
    every = union_all(*branches).subquery("every")
    asked = select(every).order_by(*_order(every.c, wanted)).limit(bindparam("at_most"))
    after_at, after_id = (None, None) if after is None else _place(after)
    values = {
        "its_project": wanted.project,
        "its_flow": wanted.flow,
        "after_at": after_at,
        "after_id": after_id,
        "since": wanted.since,
        "until": wanted.until,
        "at_most": size + 1,
    }
    found = [RunLine(**line_values(row)) for row in conn.execute(asked, values)]
    last = found[size - 1] if len(found) > size else None
    return Page(found[:size], None if last is None else f"{rfc3339(last.enqueued_at)}/{last.id}")


def run_line(conn: Connection, run_id: str) -> RunLine | None:
    """One run in the same form, or `None` when there is no such run."""
    row = conn.execute(_ONE, {"its_id": run_id}).one_or_none()
    return None if row is None else RunLine(**line_values(row))


def count_live(conn: Connection, project: str, *, at_most: int) -> int:
    """How many runs of a project have not ended; counting ends at `at_most`."""
    some = select(runs.c.id).where(is_live_in(literal(project))).limit(at_most).subquery()
    return int(conn.execute(select(func.count()).select_from(some)).scalar_one())


def _ranges(states: frozenset[RunState]) -> Iterator[ColumnElement[bool]]:
    """What is read by one index range each: an ended state, or what is alive."""
    live = states & LIVE
    if live - _STALLED:
        # Named by what they are not: PostgreSQL takes `state = 'queued'` among the live for as rare as in all history,
        # and would rather sort all of them than read a page of them in order.
        others = [state_literal(each) for each in sorted(LIVE - live)]
        yield and_(_live, *([runs.c.state.not_in(others)] if others else ()))
    else:
        yield from (and_(_live, runs.c.state == state_literal(each)) for each in sorted(live))
    yield from (and_(_ended, runs.c.state == state_literal(each)) for each in sorted(states - LIVE))


def _one_range(wanted: RunFilter, which: ColumnElement[bool], most: int, *, begins: bool) -> Select[Any]:
    found = select(*_COLUMNS).where(which)
    if wanted.flow is not None:
        found = found.where(runs.c.flow == bindparam("its_flow"))
    if not begins:
        place = tuple_(runs.c.enqueued_at, runs.c.id)
        last = tuple_(bindparam("after_at", type_=Instant()), bindparam("after_id", type_=Id()))
        found = found.where(place > last if wanted.oldest_first else place < last)
    if wanted.since is not None:
        found = found.where(runs.c.enqueued_at >= bindparam("since", type_=Instant()))
    if wanted.until is not None:
        found = found.where(runs.c.enqueued_at < bindparam("until", type_=Instant()))
    return found.order_by(*_order(runs.c, wanted)).limit(literal_column(str(most), Integer()))


def _order(columns: ReadOnlyColumnCollection[str, Any], wanted: RunFilter) -> tuple[ColumnElement[Any], ...]:
    both = columns["enqueued_at"], columns["id"]
    return tuple(each.asc() if wanted.oldest_first else each.desc() for each in both)


def _place(after: str) -> tuple[datetime, str]:
    at, _, run_id = after.partition("/")
    return from_rfc3339(at), as_id(run_id)
