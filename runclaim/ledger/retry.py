"""
retry: a failed run starts its failed phase requeue, with fresh budgets.

A run whose subject or key has a newer run is not retried: two runs of one would live at once. The subject's
row is written before the run's, as everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, null, or_, update

from runclaim.events import EventType
from runclaim.ledger.body.acts import release_unanswered
from runclaim.ledger.fence import in_state, state
from runclaim.ledger.journal import Entry, append, request_data
from runclaim.models import runs, subjects
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id
from runclaim.states import RunState

if TYPE_CHECKING:
    from sqlalchemy import Connection, Update

# Written, not only locked: an enqueue at REPEATABLE READ, whose snapshot is older, is refused at the subject's row.
_SUBJECT: Final = (
    update(subjects)
    .where(
        runs.c.id == bindparam("its_id", type_=Id()),
        subjects.c.project == runs.c.project,
        subjects.c.flow == runs.c.flow,
        subjects.c.subject == runs.c.subject,
    )
    .values(generation=subjects.c.generation)
    .returning(subjects.c.generation)
)


def requeue(source: RunState) -> Update:
    """The statement that queues a run in the state `source` requeue, unless its subject or its key has moved on."""
    return (
        update(runs)
        .where(
            runs.c.id == bindparam("its_id", type_=Id()),
            in_state(source),
            # A rerun of its key has set the generation of an outdated run below every other.
            runs.c.generation >= 0,
            or_(runs.c.subject.is_(None), runs.c.generation == bindparam("newest")),
        )
        .values(
            state=state(RunState.QUEUED),
            fence=runs.c.fence + 1,
            attempts=0,
            losses=0,
            error=null(),
            cancel_requested_at=null(),
            available_at=now(),
            dispatch_due_at=now(),
            dispatches=0,
            finished_at=null(),
        )
        .returning(runs.c.fence, runs.c.phase)
    )


_RETRY: Final = requeue(RunState.FAILED)


def retry(conn: Connection, run_id: str, *, by: str = "", call: str = "") -> bool:
    """
    Queue a failed run requeue from its failed phase; due for dispatch at once.

    Returns: whether it was failed and is the newest run of its subject and key. The caller owns the transaction, and
    after an ambiguous commit asks `journal.entries_of` with the same nonce `call`.
    """
    return move(conn, _RETRY, run_id, EventType.RUN_RETRIED, request_data(by, call))


def move(conn: Connection, statement: Update, run_id: str, kind: EventType, data: dict[str, str]) -> bool:
    """Run a statement of `requeue` for one run, its subject's row written first, and journal it as `kind`."""
    newest = conn.execute(_SUBJECT, {"its_id": run_id}).scalar()
    found = conn.execute(statement, {"its_id": run_id, "newest": newest or 0}).one_or_none()
    if found is None:
        return False
    release_unanswered(conn, run_id)
    append(conn, [Entry(run_id, kind, found.fence, found.phase, data=data)])
    return True
