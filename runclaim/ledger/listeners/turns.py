"""
turns: who is told of the journal, how far each one is, and which process tells it now.

A listener is told by one process at a time, for as long as its hold lasts; a process that lost the hold moves no
cursor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Double,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    null,
    or_,
    select,
    update,
)

from runclaim.models import events, listeners
from runclaim.sql.clock import now, shifted
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection

_zero: Final = literal_column("0", Integer())
_name: Final = bindparam("its_name", type_=Text())
_to: Final = bindparam("its_cursor", type_=BigInteger())
_held: Final = and_(listeners.c.name == _name, listeners.c.owner == bindparam("its_owner", type_=Text()))
_hold: Final = shifted(now(), bindparam("hold_seconds", type_=Double()))
_ADD: Final = upsert(
    listeners,
    lambda new: new.from_select(
        ["name", "cursor", "failures", "available_at"], select(_name, _to, _zero, now()), include_defaults=False
    ).on_conflict_do_nothing(index_elements=["name"]),
)
_CURSOR: Final = select(listeners.c.cursor).where(listeners.c.name == _name)
_ADVANCE: Final = (
    update(listeners)
    .where(listeners.c.name == _name, listeners.c.cursor == bindparam("seen", type_=BigInteger()))
    .values(cursor=_to)
)
_TAKE: Final = (
    update(listeners)
    .where(
        listeners.c.name == _name,
        or_(listeners.c.owner.is_(None), listeners.c.held_until <= now()),
        listeners.c.available_at <= now(),
    )
    .values(owner=bindparam("its_owner", type_=Text()), held_until=_hold)
    .returning(listeners.c.cursor, listeners.c.failures)
)
_KEEP: Final = (
    update(listeners)
    .where(_held)
    .values(cursor=case((_to > listeners.c.cursor, _to), else_=listeners.c.cursor), held_until=_hold)
)
_LEAVE: Final = (
    update(listeners)
    .where(_held)
    .values(
        owner=null(),
        held_until=null(),
        failures=bindparam("its_failures", type_=Integer()),
        available_at=shifted(now(), bindparam("pause_seconds", type_=Double())),
    )
)
_newest: Final[Any] = select(func.coalesce(func.max(events.c.id), 0)).scalar_subquery()
#: How many events a listener is behind at most: some are not of its types, and numbers may be missing.
#: Never below 0: what it was told last may have been purged since.
BEHIND: Final = case((_newest > listeners.c.cursor, _newest - listeners.c.cursor), else_=_zero)
_PLACES: Final = select(listeners.c.name, listeners.c.cursor)


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to tell a listener now: from where, and how many turns in a row got nothing through."""

    name: str
    owner: str
    cursor: int
    failures: int


def add_listener(conn: Connection, name: str, *, start: int) -> None:
    """Begin to listen after the event `start`; a listener that exists keeps its place."""
    conn.execute(_ADD[conn.dialect.name], {"its_name": name, "its_cursor": start})


def places(conn: Connection) -> dict[str, int]:
    """Where every listener is, by its name."""
    return {name: cursor for name, cursor in conn.execute(_PLACES)}  # noqa: C416 - a row is no pair to mypy


def cursor_of(conn: Connection, name: str, *, start: int) -> int:
    """Where the listener is; one that is new begins after the event `start`."""
    found = conn.execute(_CURSOR, {"its_name": name}).scalar_one_or_none()
    if found is None:
        add_listener(conn, name, start=start)
        found = conn.execute(_CURSOR, {"its_name": name}).scalar_one()
    return int(found)


def advance(conn: Connection, name: str, *, seen: int, to: int) -> bool:
    """Move the cursor on, if it is still where it was `seen`; in the transaction that does what the events ask for."""
    return conn.execute(_ADVANCE, {"its_name": name, "seen": seen, "its_cursor": to}).rowcount == 1


def take_turn(conn: Connection, name: str, *, owner: str, hold: timedelta) -> Turn | None:
    """The turn, or `None` while another process has it or the listener is given a pause."""
    row = conn.execute(
        _TAKE, {"its_name": name, "its_owner": owner, "hold_seconds": hold.total_seconds()}
    ).one_or_none()
    return None if row is None else Turn(name, owner, row.cursor, row.failures)


def keep_turn(conn: Connection, turn: Turn, *, cursor: int, hold: timedelta) -> bool:
    """Record how far it was told, and hold on; false when the turn was lost."""
    given = {
        "its_name": turn.name,
        "its_owner": turn.owner,
        "its_cursor": cursor,
        "hold_seconds": hold.total_seconds(),
    }
    return conn.execute(_KEEP, given).rowcount == 1


def leave_turn(conn: Connection, turn: Turn, *, failures: int, pause: timedelta) -> None:
    """Let another process take the next turn, after `pause`."""
    given = {"its_name": turn.name, "its_owner": turn.owner, "its_failures": failures}
    conn.execute(_LEAVE, given | {"pause_seconds": pause.total_seconds()})
