"""
recover: a run with a given id is inserted, or nothing is.

For a run whose id was known before the ledger had it. It never finds, moves or replaces anything, and it never waits
for its luck: whatever is in its way is an error at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select
from sqlalchemy.exc import IntegrityError

from runclaim.errors import RunExists
from runclaim.ledger import read
from runclaim.ledger import run_keys as keys
from runclaim.ledger.enqueue import Enqueued, insert_runs
from runclaim.models import run_keys, runs
from runclaim.sql.rowset import Id, pack

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.ledger.new_run import NewRun

_FIND: Final = select(runs.c.id, runs.c.key, runs.c.state).where(runs.c.id == bindparam("its_id", type_=Id()))
_HOLDER: Final = select(run_keys.c.run_id).where(keys.SAME_KEY)
#: What the run's first event says of the call that inserted it.
_NONCE: Final = "recovery"
_SQLITE_PRIMARYKEY: Final = 1555


def recover(conn: Connection, run: NewRun, *, nonce: str) -> Enqueued:
    """
    Insert the run under its own id and key.

    The caller owns the transaction, and after an ambiguous commit asks `recovered` with the same `nonce`. Raises:
    RunExists when the id is taken or the key has a run; roll back.
    """
    _refuse_if_there(conn, run)
    rows = {"keys": pack([keys.key_row(run)])}
    conn.execute(keys.FREE_EXPIRED, rows)
    if conn.execute(keys.TAKE_KEYS[conn.dialect.name], rows).first() is None:
        holder = conn.execute(_HOLDER, rows).scalar()
        found = None if holder is None else conn.execute(_FIND, {"its_id": holder}).one_or_none()
        raise RunExists(run.run_id, run.key.text, holder, None if found is None else found.state)
    try:
        insert_runs(conn, [run], notes={run.run_id: {_NONCE: nonce}})
    except IntegrityError as error:
        if _is_taken_id(error):
            # By another caller that recovers the same id under another key at this moment.
            raise RunExists(run.run_id, run.key.text, run.run_id, None) from error
        raise
    return Enqueued(run.run_id, created=True)


def recovered(conn: Connection, run: NewRun, *, nonce: str) -> Enqueued | None:
    """Read back: the answer of `recover` if this very call inserted the run, else `None`."""
    first = next(iter(read.journal(conn, run.run_id)), None)
    ours = first is not None and isinstance(first.data, dict) and first.data.get(_NONCE) == nonce
    return Enqueued(run.run_id, created=True) if ours else None


def _refuse_if_there(conn: Connection, run: NewRun) -> None:
    found = conn.execute(_FIND, {"its_id": run.run_id}).one_or_none()
    if found is not None:
        raise RunExists(run.run_id, found.key, found.id, found.state)


def _is_taken_id(error: IntegrityError) -> bool:
    """Whether a run's primary key refused the row; by the constraint's name or SQLite's extended code."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is not None:
        return bool(diagnosis.constraint_name == "pk_runclaim_runs")
    return getattr(error.orig, "sqlite_errorcode", 0) == _SQLITE_PRIMARYKEY
