"""
signal: an outside event reaches a live run; one that waits for it continues.

What decides is in the run's row: one conditional UPDATE adds the name and queues the run that waits for it, so a
signal and a completion follow each other and no run waits for what it has. What the signal said hangs on the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, bindparam, case, func, or_, select, update

from runclaim.codec import sealed
from runclaim.events import EventType
from runclaim.ledger import read
from runclaim.ledger.dispatch import MESSAGE, Due
from runclaim.ledger.fence import in_state, state
from runclaim.ledger.journal import CALL, Entry, append, entries_of
from runclaim.ledger.received_signals import barred, received
from runclaim.models import runs, signals
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import Id, verbatim
from runclaim.sql.upsert import upsert
from runclaim.states import LIVE, RunState

if TYPE_CHECKING:
    from sqlalchemy import BindParameter, Connection


class Answer(StrEnum):
    """What became of a signal."""

    DELIVERED = "delivered"  #: it is in the ledger now
    DUPLICATE = "duplicate"  #: it was there before
    NOT_LIVE = "not live"  #: the run has ended, or never was


@dataclass(frozen=True, slots=True)
class Signaled:
    """
    The answer to a signal; true when this very call delivered it.

    `due` is what to publish after the commit, if the run may continue now.
    """

    answer: Answer
    #: Whether the run waited for it, and continues with `phase`.
    moved: bool = False
    phase: str | None = None
    due: Due | None = None

    def __bool__(self) -> bool:
        return self.answer is Answer.DELIVERED


_its_id: Final[BindParameter[str]] = bindparam("its_id", type_=Id())
_its_name: Final[BindParameter[str]] = bindparam("its_name", type_=Text())
_its_signal: Final[BindParameter[str]] = bindparam("its_signal", type_=Text())
_live: Final = in_state(*sorted(LIVE))
_waited: Final = and_(in_state(RunState.WAITING), runs.c.waits_for == _its_name)
# A run that was enqueued with a delay still has it.
_from_now: Final = case((runs.c.available_at > now(), runs.c.available_at), else_=now())
_OUTCOME: Final = (
    *MESSAGE,
    # A run at a phase of that name had not received it before: it waited.
    runs.c.waits_for == _its_name,
    # What was dispatched and not claimed may have been refused for want of this signal.
    and_(
        in_state(RunState.QUEUED),
        runs.c.available_at <= now(),
        or_(runs.c.waits_for == _its_name, runs.c.dispatches > 0),
    ),
)
_SIGNAL: Final = (
    update(runs)
    .where(runs.c.id == _its_id, _live, ~received(_its_name))
    .values(
        signals=runs.c.signals + barred(_its_name),
        state=case((_waited, state(RunState.QUEUED)), else_=runs.c.state),
        fence=case((_waited, runs.c.fence + 1), else_=runs.c.fence),
        available_at=case((_waited, _from_now), else_=runs.c.available_at),
        dispatch_due_at=case((_waited, _from_now), else_=runs.c.dispatch_due_at),
    )
    .returning(*_OUTCOME)
)
_latest: Final = (
    select(func.max(signals.c.received_at))
    .where(signals.c.run_id == _its_id, signals.c.name == _its_name)
    .scalar_subquery()
)


def _keep(new: Any) -> Any:
    row = (
        select(runs.c.id, _its_name, _its_signal, verbatim(bindparam("its_payload", type_=Text())))
        # Clocks are coarse, and the first of a name is what its phase reads.
        .add_columns(case((_latest >= now(), shifted(_latest, bindparam("a_moment"))), else_=now()))
        .where(runs.c.id == _its_id, _live)
    )
    inserted = new.from_select(["run_id", "name", "signal_id", "payload", "received_at"], row)
    return inserted.on_conflict_do_nothing(index_elements=["run_id", "name", "signal_id"]).returning(signals.c.run_id)


_KEEP: Final = upsert(signals, _keep)
_KEPT: Final = (
    select(*_OUTCOME)
    .join_from(runs, signals, signals.c.run_id == runs.c.id)
    .where(runs.c.id == _its_id, signals.c.name == _its_name, signals.c.signal_id == _its_signal)
)
_A_MOMENT: Final = 1e-6


def signal(
    conn: Connection,
    run_id: str,
    name: str,
    *,
    signal_id: str,
    payload: str = "null",
    first_only: bool = False,
    call: str = "",
) -> Signaled:
    """
    Deliver a signal once; `payload` is JSON text. The caller owns the transaction and publishes after it.

    After an ambiguous commit it asks `delivered` with the same nonce `call`.

    A name that the run has already received moves nothing: a further `signal_id` of it is kept in addition to the
    first, and with `first_only` it is left out.
    """
    named = {"its_id": run_id, "its_name": name}
    row = conn.execute(_SIGNAL, named).one_or_none()
    if row is None and first_only:
        return Signaled(Answer.DUPLICATE)
    values = named | {"its_signal": signal_id, "its_payload": sealed(payload), "a_moment": _A_MOMENT}
    kept = conn.execute(_KEEP[conn.dialect.name], values).one_or_none() is not None
    if row is None:
        return Signaled(_later(conn, run_id, name, signal_id, call, kept=kept))
    *message, moved, rings = row
    phase = row.phase if moved else None
    append(conn, [_entry(run_id, row.fence, name, signal_id, call, phase)])
    return Signaled(Answer.DELIVERED, bool(moved), row.phase, Due(*message) if rings else None)


def delivered(conn: Connection, run_id: str, name: str, *, signal_id: str, call: str) -> Signaled | None:
    """
    Read back: the answer of the `signal` that was given this nonce, or `None` when it delivered nothing.

    What it moved may have moved on since; `due` is of a run that is still to be rung for.
    """
    entry = next(iter(entries_of(conn, [run_id], call=call)), None)
    if entry is None:
        return None
    row = conn.execute(_KEPT, {"its_id": run_id, "its_name": name, "its_signal": signal_id}).one_or_none()
    due = Due(*row[:-2]) if row is not None and row[-1] else None
    return Signaled(Answer.DELIVERED, entry.phase is not None, entry.phase, due)


def _later(conn: Connection, run_id: str, name: str, signal_id: str, call: str, *, kept: bool) -> Answer:
    """A name that the run had before, or a run that is not live."""
    if not kept:
        values = {"its_id": run_id, "its_name": name, "its_signal": signal_id}
        return Answer.NOT_LIVE if conn.execute(_KEPT, values).one_or_none() is None else Answer.DUPLICATE
    standing = read.standing(conn, run_id)
    append(conn, [_entry(run_id, standing.fence if standing else 0, name, signal_id, call)])
    return Answer.DELIVERED


def _entry(run_id: str, fence: int, name: str, signal_id: str, call: str, phase: str | None = None) -> Entry:
    """What is told of a signal; `phase` is the one that its run waited in."""
    data = {"name": name, "id": signal_id} | ({CALL: call} if call else {})
    return Entry(run_id, EventType.RUN_SIGNALED, fence, phase, data=data)
