"""
claim: queued → running, for the worker that may start the phase now.

One conditional UPDATE of the run's row. The fence that the message was sent at has to be the run's fence,
so a late or doubled message matches nothing; the attempt is counted here, so no crash can hide it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Double, Integer, Text, and_, bindparam, case, func, select, update

from runclaim.codec import needed
from runclaim.events import EventType
from runclaim.ledger.fence import Claim, locked, stands_in, state
from runclaim.ledger.journal import Entry, append, beside, packed_entries
from runclaim.ledger.priority import PRIORITY
from runclaim.ledger.received_signals import waits
from runclaim.models import runs
from runclaim.sql.clock import earlier, now, shifted
from runclaim.sql.prepared import Prepared
from runclaim.sql.rowset import Id, as_id, few, pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import timedelta

    from sqlalchemy import CTE, ColumnElement, Connection
    from sqlalchemy.sql.dml import ReturningUpdate


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A run that a message names, the fence it was sent at, and the nonce that will own the claim."""

    run_id: str
    seen: int
    owner: str


#: 1, or 2 after a signal; a run that was claimed before is claimed again at 3 or later.
_FIRST_FENCES: Final = 2
_CLAIM_COLUMNS: Final = (
    runs.c.id.label("run_id"),
    runs.c.fence,
    runs.c.owner,
    runs.c.flow,
    runs.c.key,
    runs.c.subject,
    runs.c.phases,
    runs.c.cursor,
    runs.c.phase,
    runs.c.queue,
    runs.c.attempts.label("attempt"),
    runs.c.max_attempts,
    PRIORITY,
    runs.c.input,
    runs.c.trace_context,
    runs.c.headers,
    runs.c.project,
    runs.c.rerun,
)


_asked: Final = few(rowset("asked", run_id=Id(), seen=BigInteger(), owner=Text(), entries=Text()))
_lease_end: Final = shifted(now(), bindparam("lease_seconds", type_=Double()))
_may_start: Final = and_(
    runs.c.cancel_requested_at.is_(None), runs.c.available_at <= now(), runs.c.attempts < runs.c.max_attempts
)
_deadline: Final = shifted(now(), bindparam("duration_seconds", type_=Double()))
#: What queued the run may be a release that does not know the phase; its budgets are fixed by the first that starts it.
_is_first: Final = and_(runs.c.attempts == 0, runs.c.losses == 0)


def _fixed(given: str, recorded: ColumnElement[int]) -> ColumnElement[int]:
    return case((_is_first, func.coalesce(bindparam(given, type_=Integer()), recorded)), else_=recorded)


def _update(wanted: CTE) -> ReturningUpdate[Any]:
    return (
        update(runs)
        .where(
            runs.c.id == wanted.c.run_id,
            stands_in(RunState.QUEUED),
            runs.c.fence == wanted.c.seen,
            runs.c.flow == bindparam("its_flow"),
            runs.c.phase == bindparam("its_phase"),
            _may_start,
            # A release that does not know the phase may have queued its run.
            ~waits(bindparam("its_signal", type_=Text())),
        )
        .values(
            state=state(RunState.RUNNING),
            fence=runs.c.fence + 1,
            owner=wanted.c.owner,
            worker=bindparam("by_worker"),
            attempts=runs.c.attempts + 1,
            max_attempts=_fixed("its_attempts", runs.c.max_attempts),
            max_losses=_fixed("its_losses", runs.c.max_losses),
            lease_expires_at=earlier(_lease_end, _deadline),
            deadline_at=_deadline,
            claimed_at=now(),
            started_at=func.coalesce(runs.c.started_at, now()),
        )
        .returning(*_CLAIM_COLUMNS)
    )


def _update_at_once(wanted: CTE) -> Prepared:
    """PostgreSQL writes the journal in the same statement."""
    taken = _update(wanted).returning(runs.c.state, wanted.c.entries).cte("claimed")
    return Prepared(
        select(*(taken.c[each.name] for each in _CLAIM_COLUMNS)).add_cte(
            beside(taken, run_id=taken.c.run_id, state=taken.c.state, attempt=taken.c.attempt).cte("journal")
        )
    )


_is_wanted: Final = and_(runs.c.id == _asked.c.run_id, stands_in(RunState.QUEUED), runs.c.fence == _asked.c.seen)
_wanted: Final = [locked(_asked, _is_wanted, pass_over=each) for each in (False, True)]
_CLAIM: Final = _update(_wanted[False])
_CLAIM_AT_ONCE: Final = [_update_at_once(wanted) for wanted in _wanted]
_STANDING: Final = select(runs.c.id).join_from(_asked, runs, and_(_is_wanted, _may_start))
_owners: Final = few(rowset("owners", owner=Text(), run_id=Id()))
_READ_BACK: Final = select(*_CLAIM_COLUMNS).where(
    and_(runs.c.id == _owners.c.run_id, runs.c.owner == _owners.c.owner, stands_in(RunState.RUNNING))
)


def claim(
    conn: Connection,
    wanted: Collection[ClaimRequest],
    *,
    flow: str,
    phase: str,
    worker: str,
    lease: timedelta,
    max_duration: timedelta,
    waits_for: str | None = None,
    max_attempts: int | None = None,
    max_losses: int | None = None,
    pass_over: bool = False,
) -> list[Claim]:
    """
    Take the current phase of each wanted run, or leave the run out if it is not ours to take.

    An empty answer is the ordinary one to a redelivered message and no error. `waits_for` names the signal without
    which the phase is not started. `max_attempts` and `max_losses` are the phase's budgets as the claimer knows them;
    its first claim fixes them. `pass_over` leaves out runs whose rows another transaction holds: ask
    `passed_over`. The caller owns the transaction: nothing is claimed until it commits. One statement
    on PostgreSQL, which may be a transaction by itself.
    """
    rows: list[dict[str, Any]] = [
        {"run_id": as_id(each.run_id), "seen": each.seen, "owner": each.owner} for each in wanted
    ]
    values = {
        "its_flow": flow,
        "its_phase": phase,
        "its_signal": waits_for,
        "its_attempts": max_attempts,
        "its_losses": max_losses,
        "by_worker": worker,
        "lease_seconds": lease.total_seconds(),
        "duration_seconds": max_duration.total_seconds(),
    }
    if conn.dialect.name == "postgresql":
        for row, each in zip(rows, wanted, strict=True):
            row["entries"] = packed_entries((entry, None) for entry in _starts(each.run_id, each.seen + 1, phase, None))
        found = _claims(_CLAIM_AT_ONCE[pass_over].execute(conn, {"asked": rows}, values).all())
        # PostgreSQL gives them in the order of its joins.
        place = {row["run_id"]: number for number, row in enumerate(rows)}
        return sorted(found, key=lambda each: place[each.run_id])
    claims = _claims(conn.execute(_CLAIM, values | {"asked": pack(rows)}).all())
    append(conn, (entry for each in claims for entry in _starts(each.run_id, each.fence, phase, each.attempt)))
    return claims


def claimed(conn: Connection, wanted: Collection[ClaimRequest]) -> list[Claim]:
    """Read back: those of `wanted` that the ledger shows as claimed by their very nonces."""
    rows = [{"run_id": as_id(each.run_id), "owner": each.owner} for each in wanted]
    return _claims(conn.execute(_READ_BACK, {"owners": pack(rows)}).all())


def passed_over(conn: Connection, wanted: Collection[ClaimRequest]) -> set[str]:
    """Those of `wanted`, by their runs, that could be claimed: another transaction holds their rows. Only reads."""
    rows = [{"run_id": as_id(each.run_id), "seen": each.seen} for each in wanted]
    return set(conn.execute(_STANDING, {"asked": pack(rows)}).scalars())


def _claims(rows: Iterable[Any]) -> list[Claim]:
    # As the driver has them where the statement was prepared; elsewhere their types have opened them.
    return [
        Claim(
            **row._asdict() | {"phases": tuple(row.phases), "input": needed(row.input), "headers": needed(row.headers)}
        )
        for row in rows
    ]


def _starts(run_id: str, fence: int, phase: str, attempt: int | None) -> Iterable[Entry]:
    """What the journal is told of a claim; with no attempt it is the claimed row's."""
    # What else moves a run that was never claimed is the signal that it waits for first, or ends it. An attempt that
    # was given back is not a second start.
    if fence <= _FIRST_FENCES:
        yield Entry(run_id, EventType.RUN_STARTED, fence)
    yield Entry(run_id, EventType.PHASE_STARTED, fence, phase, attempt)
