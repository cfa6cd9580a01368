"""
pinned_runs: the live runs that have a phase before them, counted and page by page, to give it a new name.

A run that is running cannot be moved, as its worker holds the old list; nor one with a call of that phase whose answer
is not known, as the key under which it is looked up has the phase's name in it. Both are counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, bindparam, case, cast, func, literal_column, select
from sqlalchemy import tuple_ as both

from runclaim.ledger.fence import in_state, is_live_in
from runclaim.models import acts, runs
from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, as_id, few, pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Select


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseMove:
    """Of which live runs which phase gets which name; with `key` or `run_ids` only of those."""

    project: str
    flow: str
    old: str
    new: str
    key: str | None = None
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How many runs have the phase before them: to move; running; with a call in doubt; with both names."""

    movable: int
    running: int
    in_doubt: int
    with_both: int


@dataclass(frozen=True, slots=True)
class Pinned:
    """A run whose phase can be moved, as it was read."""

    run_id: str
    fence: int
    cursor: int
    #: The JSON text of its phases, as the database gives it.
    phases: str
    enqueued_at: datetime
    #: A move does not change it.
    state: RunState


OLD: Final = bindparam("its_old", type_=Text())
NEW: Final = bindparam("its_new", type_=Text())
LIST: Final = cast(runs.c.phases, Text)
_quote: Final = literal_column("""'"'""", Text())
_asked: Final = few(rowset("asked", run_id=Id()))
_is_running: Final = in_state(RunState.RUNNING)
_in_doubt: Final = and_(
    runs.c.phase == OLD,
    select(acts.c.name).where(acts.c.run_id == runs.c.id, acts.c.phase == OLD, acts.c.state == "sending").exists(),
)


def _has(phase: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether the list has a phase of that name; a name holds nothing that JSON would escape."""
    return func.replace(LIST, _quote + phase + _quote, literal_column("''", Text())) != LIST


_both: Final = _has(NEW)
_PAGE: Final = (
    select(runs.c.id, runs.c.fence, runs.c.cursor, LIST, runs.c.enqueued_at, runs.c.state)
    .where(~_is_running, ~_both, ~_in_doubt)
    .order_by(runs.c.enqueued_at, runs.c.id)
    .limit(bindparam("at_most"))
)
_after: Final = both(runs.c.enqueued_at, runs.c.id) > both(
    bindparam("after_at", type_=Instant()), bindparam("after_id", type_=Id())
)
_kind: Final = case((_both, "both"), (_is_running, "running"), (_in_doubt, "doubt"), else_="movable")
_COUNTED: Final = select(LIST.label("phases"), runs.c.cursor, _kind.label("kind"), runs.c.id)


def standing(conn: Connection, move: PhaseMove) -> Standing:
    """How many runs the move is about, each counted once."""
    wanted = _of(_COUNTED, move).subquery()
    counted = select(wanted.c.phases, wanted.c.cursor, wanted.c.kind, func.count()).group_by(*list(wanted.c)[:3])
    many = dict.fromkeys(("movable", "running", "doubt", "both"), 0)
    for phases, cursor, kind, count in conn.execute(counted, _values(move)):
        if move.old in json.loads(phases)[cursor:]:
            many[kind] += count
    return Standing(many["movable"], many["running"], many["doubt"], many["both"])


def movable(
    conn: Connection, move: PhaseMove, *, after: Pinned | None, limit: int
) -> tuple[list[Pinned], Pinned | None]:
    """The next runs behind `after` that can be moved, and what to give as `after` next; `None` at the end."""
    page = _of(_PAGE if after is None else _PAGE.where(_after), move)
    place = {} if after is None else {"after_at": after.enqueued_at, "after_id": after.run_id}
    read = [
        Pinned(row.id, row.fence, row.cursor, row[3], row.enqueued_at, RunState(row.state))
        for row in conn.execute(page, _values(move) | place | {"at_most": limit})
    ]
    found = [each for each in read if move.old in json.loads(each.phases)[each.cursor :]]
    return found, read[-1] if len(read) == limit else None


def _of(asked: Select[Any], move: PhaseMove) -> Select[Any]:
    wanted = asked.where(
        is_live_in(bindparam("its_project", type_=Text())), runs.c.flow == bindparam("its_flow"), _has(OLD)
    )
    if move.key is not None:
        wanted = wanted.where(runs.c.key == bindparam("its_key"))
    return wanted.where(runs.c.id.in_(select(_asked.c.run_id))) if move.run_ids else wanted


def _values(move: PhaseMove) -> dict[str, Any]:
    values = {"its_project": move.project, "its_flow": move.flow, "its_old": move.old, "its_new": move.new}
    key = {} if move.key is None else {"its_key": move.key}
    return values | key | ({"asked": pack({"run_id": as_id(each)} for each in move.run_ids)} if move.run_ids else {})
