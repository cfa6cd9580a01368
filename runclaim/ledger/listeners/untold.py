"""
untold: events that a listener did not take, told again later.

What fails is set aside and delays only the later events of its own run, which are set aside behind it: so the
events of a run keep their order. What is given up stays, for a person to see, until its run is purged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Double,
    Integer,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    select,
    true,
    update,
)

from runclaim.codec import seal
from runclaim.ledger.listeners.tail import LINE, Line
from runclaim.ledger.listeners.turns import BEHIND
from runclaim.models import events, listeners, runs, untold
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import Id, as_json, pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from sqlalchemy import ColumnElement, Connection


@dataclass(frozen=True, slots=True)
class Aside:
    """An event to set aside: told so often already, and due after `delay`."""

    line: Line
    attempts: int
    delay: timedelta
    error: dict[str, Any] | None
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class ListenerView:
    """A listener: how many events it is behind at most, did not take and is told again, and was given up on."""

    name: str
    behind: int
    untold: int
    given_up: int


def _in(state: str) -> ColumnElement[str]:
    """A state as a literal of the statement, so that a prepared plan can use the partial index."""
    return literal_column(f"'{state}'", Text())


_listener: Final = bindparam("its_listener", type_=Text())
_aside: Final = rowset(
    "aside",
    event_id=BigInteger(),
    run_id=Id(),
    state=Text(),
    attempts=Integer(),
    delay_seconds=Double(),
    error=Text(),
)


def _set_aside(new: Any) -> Any:
    inserted = new.from_select(
        ["listener", "event_id", "run_id", "state", "attempts", "available_at", "error"],
        select(
            _listener,
            _aside.c.event_id,
            _aside.c.run_id,
            _aside.c.state,
            _aside.c.attempts,
            shifted(now(), _aside.c.delay_seconds),
            as_json(_aside.c.error),
        ).where(true()),
        include_defaults=False,
    )
    return inserted.on_conflict_do_update(
        index_elements=["listener", "event_id"],
        set_={name: inserted.excluded[name] for name in ("state", "attempts", "available_at", "error")},
    )


_SET_ASIDE: Final = upsert(untold, _set_aside)
_FORGET: Final = delete(untold).where(
    untold.c.listener == _listener, untold.c.event_id == bindparam("its_event", type_=BigInteger())
)
_earlier: Final = untold.alias("earlier")
_is_first: Final = ~exists(
    select(true())
    .select_from(_earlier)
    .where(
        _earlier.c.run_id == untold.c.run_id,
        _earlier.c.listener == untold.c.listener,
        _earlier.c.event_id < untold.c.event_id,
        _earlier.c.state == _in("waiting"),
    )
    .correlate(untold)
)
_waits: Final = and_(untold.c.listener == _listener, untold.c.state == _in("waiting"))
_DUE: Final = (
    select(untold.c.attempts, *LINE)
    .join_from(untold, events, events.c.id == untold.c.event_id)
    .join(runs, runs.c.id == untold.c.run_id)
    .where(_waits, untold.c.available_at <= select(now()).scalar_subquery(), _is_first)
    .order_by(untold.c.available_at)
    .limit(bindparam("at_most"))
)
_IS_DUE: Final = (
    select(untold.c.event_id).where(_waits, untold.c.available_at <= select(now()).scalar_subquery()).limit(1)
)
_asked: Final = rowset("asked", run_id=Id())
_HELD_UP: Final = (
    select(untold.c.run_id).join_from(_asked, untold, and_(untold.c.run_id == _asked.c.run_id, _waits)).distinct()
)
_TELL_AGAIN: Final = (
    update(untold)
    .where(untold.c.listener == _listener, untold.c.state == _in("given_up"))
    .values(state=_in("waiting"), attempts=literal_column("0", Integer()), available_at=now())
)


def how_many_untold(state: str) -> ColumnElement[int]:
    """For a statement of listeners: how many events that are aside for each are in that state."""
    asked = select(func.count()).where(untold.c.listener == listeners.c.name, untold.c.state == _in(state))
    return asked.correlate(listeners).scalar_subquery()


_LISTENERS: Final = select(
    listeners.c.name,
    BEHIND,
    how_many_untold("waiting"),
    how_many_untold("given_up"),
).order_by(listeners.c.name)


def set_aside(conn: Connection, listener: str, aside: Collection[Aside]) -> None:
    """Set events aside, or write how often one that is aside was told by now. The caller owns the transaction."""
    rows = [
        {
            "event_id": each.line.id,
            "run_id": each.line.run_id,
            "state": "given_up" if each.given_up else "waiting",
            "attempts": each.attempts,
            "delay_seconds": each.delay.total_seconds(),
            "error": None if each.error is None else json.dumps(seal(each.error)),
        }
        for each in aside
    ]
    if rows:
        conn.execute(_SET_ASIDE[conn.dialect.name], {"its_listener": listener, "aside": pack(rows)})


def forget_untold(conn: Connection, listener: str, event_id: int) -> None:
    """It got through."""
    conn.execute(_FORGET, {"its_listener": listener, "its_event": event_id})


def due_untold(conn: Connection, listener: str, *, limit: int) -> list[tuple[int, Line]]:
    """What is due, with how often it was told: of each run only the first that waits."""
    found: Any = conn.execute(_DUE, {"its_listener": listener, "at_most": limit})
    return [(row[0], Line(*row[1:])) for row in found]


def is_due(conn: Connection, listener: str) -> bool:
    """Whether anything may be due."""
    return conn.execute(_IS_DUE, {"its_listener": listener}).first() is not None


def held_up(conn: Connection, listener: str, run_ids: Collection[str]) -> set[str]:
    """Those of the runs that have an event aside which waits: their later events wait behind it."""
    rows = [{"run_id": run_id} for run_id in run_ids]
    return set(conn.execute(_HELD_UP, {"its_listener": listener, "asked": pack(rows)}).scalars())


def listener_views(conn: Connection) -> list[ListenerView]:
    """Every listener by its name. Counts all that was given up: for people, not for loops."""
    return [ListenerView(*row) for row in conn.execute(_LISTENERS)]


def tell_again(conn: Connection, listener: str) -> int:
    """Try what was given up for this listener once more, from the first attempt; returns how many."""
    return conn.execute(_TELL_AGAIN, {"its_listener": listener}).rowcount
