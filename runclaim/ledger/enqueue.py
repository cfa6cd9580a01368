"""
enqueue: one run per key, one live run per subject, however many callers enqueue at once.

Lock order, here and everywhere: the user's rows, run keys, subjects, runs, and then what hangs on a run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Double,
    Integer,
    SmallInteger,
    Text,
    case,
    delete,
    insert,
    literal_column,
    null,
    select,
    true,
)

from runclaim.codec import sealed
from runclaim.errors import KeyConflict
from runclaim.events import EventType
from runclaim.ledger.fence import state
from runclaim.ledger.journal import Entry, append, append_of
from runclaim.ledger.priority import stored
from runclaim.ledger.run_keys import FEW, GIVE_BACK, TAKE_KEYS, first_of_each_key, key_of, key_row, take_keys
from runclaim.ledger.subjects import count_generations, supersede
from runclaim.models import runs
from runclaim.sql.clock import now, shifted
from runclaim.sql.prepared import Prepared
from runclaim.sql.rowset import Id, as_json, pack, rowset, verbatim
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from runclaim.ledger.new_run import NewRun


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The run of a key: `created` tells whether this call made it."""

    run_id: str
    created: bool


_new: Final = rowset(
    "fresh",
    id=Id(),
    key=Text(),
    subject=Text(),
    generation=BigInteger(),
    rerun=Integer(),
    input=Text(),
    trace_context=Text(),
    headers=Text(),
    delivery_id=Text(),
    delivery_action=Text(),
    note=Text(),
)
#: What the runs of one call share, in one row.
_call: Final = rowset(
    "call",
    project=Text(),
    flow=Text(),
    priority=SmallInteger(),
    phases=Text(),
    phase=Text(),
    queue=Text(),
    waits_for=Text(),
    max_attempts=Integer(),
    max_losses=Integer(),
    delay_seconds=Double(),
    dispatch_seconds=Double(),
)
#: Read once a statement: of two readings the later one would be a microsecond off the delay that was asked for.
_clock: Final = select(now().label("at")).subquery("clock")
_OWN: Final = ("id", "key", "subject", "generation", "rerun", "delivery_id", "delivery_action")
_SHARED: Final = ("project", "flow", "priority", "phase", "queue", "waits_for", "max_attempts", "max_losses")
_ZEROS: Final = ["cursor", "fence", "attempts", "losses", "dispatches", "pending_actions"]
_JSON: Final = ["input", "trace_context", "headers", "phases"]
_TIMES: Final = ["enqueued_at", "updated_at", "available_at", "dispatch_due_at"]
_RUN_COLUMNS: Final = [*_OWN, *_SHARED, *_ZEROS, "state", *_JSON, *_TIMES]
_RUN_ROWS: Final = (
    select(*(_new.c[name] for name in _OWN), *(_call.c[name] for name in _SHARED))
    .add_columns(*(literal_column("0", Integer()) for _ in _ZEROS))
    .add_columns(case((_call.c.waits_for.is_(None), state(RunState.QUEUED)), else_=state(RunState.WAITING)))
    .add_columns(
        verbatim(_new.c.input), as_json(_new.c.trace_context), as_json(_new.c.headers), as_json(_call.c.phases)
    )
    .add_columns(_clock.c.at, _clock.c.at.label("updated_at"), shifted(_clock.c.at, _call.c.delay_seconds))
    .add_columns(shifted(_clock.c.at, _call.c.dispatch_seconds))
    .join_from(_new, _call, true())
    .join(_clock, true())
)
_INSERT: Final = insert(runs).from_select(_RUN_COLUMNS, _RUN_ROWS.where(true()), include_defaults=False)
#: PostgreSQL writes the journal in the same statement,
_INSERT_AT_ONCE: Final = (
    select(true())
    .add_cte(_INSERT.cte("made"))
    .add_cte(
        append_of(
            select(_new.c.id, literal_column(f"'{EventType.RUN_ENQUEUED}'"), literal_column("0"), as_json(_new.c.note))
        ).cte("journal")
    )
)
#: and where nothing is counted or superseded, the keys as well.
_taken: Final = TAKE_KEYS["postgresql"].cte("taken")
_made: Final = (
    insert(runs)
    .from_select(_RUN_COLUMNS, _RUN_ROWS.where(_new.c.id.in_(select(_taken.c.run_id))), include_defaults=False)
    .returning(runs.c.id)
    .cte("made")
)
_enqueued: Final = select(_made.c.id, literal_column(f"'{EventType.RUN_ENQUEUED}'"), literal_column("0"), null())
_ENQUEUE_AT_ONCE: Final = Prepared(
    # Identifiers sort as they were made, so the events of a batch are in its order.
    select(_made.c.id).add_cte(append_of(_enqueued.order_by(_made.c.id)).cte("journal"))
)


def enqueue_at_once(conn: Connection, fresh: Sequence[NewRun]) -> set[str]:
    """
    Make those of `fresh` whose keys are free, in one statement of PostgreSQL, which may be a transaction by itself.

    They have no subjects, and share what the runs of one call share. Returns: the runs that were made. Of the others
    nothing was written, and `enqueue` tells why.
    """
    rowsets = {
        "keys": [key_row(each) for each in fresh],
        "fresh": [_row(each) for each in fresh],
        "call": [_call_row(fresh[0])],
    }
    return set(_ENQUEUE_AT_ONCE.execute(conn, rowsets).scalars())


def enqueue(conn: Connection, wanted: Collection[NewRun]) -> list[Enqueued]:
    """
    Make a run for each wanted key that has none, and name the existing run of each that has one.

    The answers come in the order of `wanted`. Publish what was created only after the caller's commit; the
    caller owns the transaction, which may be the application's own. Doing it again after an ambiguous commit
    is safe: a run recognises itself. Raises: KeyConflict for a key that has another input; roll back.
    """
    first = first_of_each_key(wanted)
    at_once = _may_be_at_once(conn, first.values())
    made = enqueue_at_once(conn, list(first.values())) if at_once else set()
    rest = {key: each for key, each in first.items() if each.run_id not in made}
    try:
        taken, holders = take_keys(conn, rest, were_held=at_once)
    except KeyConflict:
        # The caller may continue its transaction: a refused call leaves nothing behind.
        _unmake(conn, [each for each in first.values() if each.run_id in made])
        raise
    fresh = [each for each in first.values() if each.run_id in taken]
    if fresh:
        insert_runs(conn, fresh)
    holders |= {key: each.run_id for key, each in first.items() if each.run_id in made}
    return [Enqueued(run_id := holders[key_of(each)], created=run_id == each.run_id) for each in wanted]


def _may_be_at_once(conn: Connection, fresh: Collection[NewRun]) -> bool:
    # Of several calls the keys have to be taken together, in their order.
    is_one_call = len(_by_call(fresh)) == 1
    return conn.dialect.name == "postgresql" and is_one_call and not any(each.subject for each in fresh)


def _unmake(conn: Connection, made: Collection[NewRun]) -> None:
    keys = {"keys": pack(key_row(each) for each in made)}
    for statement in (delete(runs).where(runs.c.id.in_(select(FEW.c.run_id))), GIVE_BACK) if made else ():
        conn.execute(statement, keys)


def insert_runs(
    conn: Connection,
    fresh: Collection[NewRun],
    *,
    reruns: Mapping[str, int] | None = None,
    notes: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """
    Make these runs, whose keys the caller has just taken, and supersede the older ones of their subjects.

    `reruns` maps a run id to its number among the runs of its key, `notes` to what its first event says.
    """
    generations = count_generations(conn, fresh)
    reruns, notes = reruns or {}, notes or {}
    at_once = conn.dialect.name == "postgresql"
    for of_call in _by_call(fresh):
        rows = [
            _row(each, generations.get(each.run_id, 0), reruns.get(each.run_id, 0), notes.get(each.run_id))
            for each in of_call
        ]
        packed = {"fresh": pack(rows), "call": pack([_call_row(of_call[0])])}
        conn.execute(_INSERT_AT_ONCE if at_once else _INSERT, packed)
    if not at_once:
        append(conn, [Entry(each.run_id, EventType.RUN_ENQUEUED, 0, data=notes.get(each.run_id)) for each in fresh])
    supersede(conn, fresh, generations)


def _by_call(fresh: Collection[NewRun]) -> list[list[NewRun]]:
    """Runs that share a row of `call`."""
    found: dict[tuple[Any, ...], list[NewRun]] = {}
    for each in fresh:
        where = (each.project, each.flow, each.priority, each.phases, each.queue, each.waits_for)
        found.setdefault((*where, each.max_attempts, each.max_losses, each.delay, each.dispatch_after), []).append(each)
    return list(found.values())


def _row(run: NewRun, generation: int = 0, rerun: int = 0, note: Any = None) -> dict[str, Any]:
    return {
        "id": run.run_id,
        "key": run.key.text,
        "subject": run.subject,
        "generation": generation,
        "rerun": rerun,
        "input": sealed(json.dumps(run.input)),
        "trace_context": None if run.trace_context is None else json.dumps(run.trace_context),
        "headers": None if run.headers is None else sealed(json.dumps(run.headers)),
        "delivery_id": run.delivery_id,
        "delivery_action": run.delivery_action,
        "note": None if note is None else json.dumps(note),
    }


def _call_row(run: NewRun) -> dict[str, Any]:
    return {
        "project": run.project,
        "flow": run.flow,
        "priority": stored(run.priority),
        "phases": json.dumps(run.phases),
        "phase": run.phases[0],
        "queue": run.queue,
        "waits_for": run.waits_for,
        "max_attempts": run.max_attempts,
        "max_losses": run.max_losses,
        "delay_seconds": run.delay.total_seconds(),
        "dispatch_seconds": (run.delay or run.dispatch_after).total_seconds(),
    }
