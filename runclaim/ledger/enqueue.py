"""
enqueue: one run a key, one live run a subject, however many ask at once.

Lock order, here and everywhere: the user's rows, run keys, subjects, runs, and then what hangs on a run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Double, Integer, SmallInteger, Text, case, insert, literal_column, select, true

from runclaim.clock import now, shifted
from runclaim.events import EventType
from runclaim.ledger.fence import state
from runclaim.ledger.identity import TAKE_KEYS, first_of_each_key, key_of, key_row, take_keys
from runclaim.ledger.journal import Entry, append, append_of, beside, written
from runclaim.ledger.subjects import count_generations, supersede
from runclaim.models import runs
from runclaim.prepared import Prepared
from runclaim.rowset import Id, as_json, pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

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
    project=Text(),
    flow=Text(),
    key=Text(),
    subject=Text(),
    generation=BigInteger(),
    rerun=Integer(),
    priority=SmallInteger(),
    input=Text(),
    phases=Text(),
    phase=Text(),
    queue=Text(),
    waits_for=Text(),
    max_attempts=Integer(),
    max_losses=Integer(),
    trace_context=Text(),
    delay_seconds=Double(),
    dispatch_seconds=Double(),
)
_PLAIN: Final = (
    "id",
    "project",
    "flow",
    "key",
    "subject",
    "generation",
    "rerun",
    "priority",
    "phase",
    "queue",
    "waits_for",
    "max_attempts",
    "max_losses",
)
_JSON: Final = ("input", "phases", "trace_context")
_ZEROS: Final = ["cursor", "fence", "attempts", "losses", "dispatches", "pending_actions"]
_RUN_COLUMNS: Final = [*_PLAIN, *_ZEROS, "state", *_JSON, "enqueued_at", "available_at", "dispatch_due_at"]
_RUN_ROWS: Final = (
    select(*(_new.c[name] for name in _PLAIN), *(literal_column("0", Integer()) for _ in _ZEROS))
    .add_columns(case((_new.c.waits_for.is_(None), state(RunState.QUEUED)), else_=state(RunState.WAITING)))
    .add_columns(*(as_json(_new.c[name]) for name in _JSON))
    .add_columns(now(), shifted(now(), _new.c.delay_seconds), shifted(now(), _new.c.dispatch_seconds))
    .where(true())
)
_INSERT: Final = insert(runs).from_select(_RUN_COLUMNS, _RUN_ROWS, include_defaults=False)


#: PostgreSQL writes the journal in the same statement,
_inserted: Final = _INSERT.returning(runs.c.id, runs.c.state).cte("made")
_INSERT_AT_ONCE: Final = select(_inserted.c.id).add_cte(
    beside(_inserted, run_id=_inserted.c.id, state=_inserted.c.state).cte("journal")
)
#: and where nothing is counted or superseded, the key as well.
_taken: Final = TAKE_KEYS["postgresql"].cte("taken")
_made: Final = (
    insert(runs)
    .from_select(_RUN_COLUMNS, _RUN_ROWS.where(_new.c.id.in_(select(_taken.c.run_id))), include_defaults=False)
    .returning(runs.c.id)
    .cte("made")
)
_ENQUEUE_AT_ONCE: Final = Prepared(
    select(_made.c.id).add_cte(
        append_of(select(_made.c.id, literal_column(f"'{EventType.RUN_ENQUEUED}'"), literal_column("0"))).cte("journal")
    )
)


def enqueue_at_once(conn: Connection, run: NewRun) -> bool:
    """
    Make one run without a subject in one statement of PostgreSQL, which may be a transaction by itself.

    Returns: whether it was made. If not, nothing was written, and `enqueue` tells why.
    """
    rowsets = {"keys": [key_row(run)], "fresh": [_row(run, 0, 0)]}
    return _ENQUEUE_AT_ONCE.execute(conn, rowsets).first() is not None


def enqueue(conn: Connection, wanted: Collection[NewRun]) -> list[Enqueued]:
    """
    Make a run for each wanted key that has none, and name the existing run of each that has one.

    The answers come in the order of `wanted`. Publish what was created only after the caller's commit; the
    caller owns the transaction, which may be the application's own. Doing it again after an ambiguous commit
    is safe: a run recognises itself. Raises: KeyConflict for a key that has another input; roll back.
    """
    first = first_of_each_key(wanted)
    taken, holders = take_keys(conn, first)
    fresh = [each for each in first.values() if each.run_id in taken]
    if fresh:
        insert_runs(conn, fresh)
    return [Enqueued(run_id := holders[key_of(each)], created=run_id == each.run_id) for each in wanted]


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
    rows = [_row(each, generations.get(each.run_id, 0), (reruns or {}).get(each.run_id, 0)) for each in fresh]
    entries = _journal(fresh, notes or {})
    if conn.dialect.name == "postgresql":
        packed = {"fresh": pack(rows), "written": pack(written((each, None) for each in entries))}
        conn.execute(_INSERT_AT_ONCE, packed)
    else:
        conn.execute(_INSERT, {"fresh": pack(rows)})
        append(conn, entries)
    supersede(conn, fresh, generations)


def _journal(fresh: Iterable[NewRun], notes: Mapping[str, dict[str, Any]]) -> list[Entry]:
    return [Entry(each.run_id, EventType.RUN_ENQUEUED, 0, data=notes.get(each.run_id)) for each in fresh]


def _row(run: NewRun, generation: int, rerun: int) -> dict[str, Any]:
    return {
        "id": run.run_id,
        "project": run.project,
        "flow": run.flow,
        "key": run.key.text,
        "subject": run.subject,
        "generation": generation,
        "rerun": rerun,
        "priority": run.priority,
        "input": json.dumps(run.input),
        "phases": json.dumps(run.phases),
        "phase": run.phases[0],
        "queue": run.queue,
        "waits_for": run.waits_for,
        "max_attempts": run.max_attempts,
        "max_losses": run.max_losses,
        "trace_context": None if run.trace_context is None else json.dumps(run.trace_context),
        "delay_seconds": run.delay.total_seconds(),
        "dispatch_seconds": (run.delay or run.dispatch_after).total_seconds(),
    }
