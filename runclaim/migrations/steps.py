"""
An upgrade of a PostgreSQL that is in use: a transaction for each script, and its indexes after it, CONCURRENTLY.

Who waits for a lock holds up everyone behind it in the same line: a try waits for `LOCK_SECONDS` and is then repeated.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy.exc import DBAPIError

from runclaim.errors import LedgerUnavailable
from runclaim.migrations import indexes, locks, scripts
from runclaim.migrations.indexes import ALREADY
from runclaim.pause import Pauses
from runclaim.sql.schemas import quoted
from runclaim.sql.trouble import sqlstate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.script import Script
    from sqlalchemy import Connection

    from runclaim.database import Database
    from runclaim.migrations.revisions import Schema

#: How long one try waits for a lock, and everyone else behind it.
LOCK_SECONDS: Final = 2.0
_LOCK: Final = 7_236_418_250_113  # any number; the same for every runclaim that upgrades this database
#: Without a parameter: sent with one, its portal would keep a snapshot until the next statement.
_TRY_LOCK: Final = f"SELECT pg_try_advisory_xact_lock({_LOCK})"
#: A lock that was not given in time, a deadlock with the application's transactions.
_BUSY: Final = frozenset({"55P03", "40P01"})
#: Several locks, each in time and all of them not.
_TOO_LONG: Final = "57014"


class Effort(NamedTuple):
    """How long an upgrade waits in all for what is in its way, in seconds, and who hears of what it does."""

    wait: float
    say: Callable[[str], None]


@contextmanager
def alone(database: Database, effort: Effort) -> Iterator[Connection]:
    """
    A transaction during which no other process upgrades this database; it sees what the one before has done.

    It waits for its turn without a snapshot: an index that is made CONCURRENTLY would wait for that one.
    Raises: LedgerUnavailable.
    """
    with database.engine.connect() as conn:
        # Whatever the role and the database say.
        conn.execution_options(isolation_level="READ COMMITTED")
        for setting in ("idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout"):
            conn.exec_driver_sql(f"SET LOCAL {setting} TO 0")
        pauses = Pauses(effort.wait)
        while not conn.exec_driver_sql(_TRY_LOCK).scalar():
            if (pause := pauses.next()) is None:
                raise LedgerUnavailable(
                    f"another process has been upgrading {database} for {effort.wait:g} s; when it has ended,"
                    " run `runclaim db upgrade` again"
                )
            time.sleep(pause)
        yield conn


def climb(database: Database, schema: Schema, before: str, effort: Effort) -> None:
    """Bring tables that are in use to the schema's head, script by script. Raises: LedgerUnavailable."""
    for script in scripts.between(schema, None, before):
        if scripts.is_concurrent(script):
            _index(database, script, effort, only_invalid=True)
    for script in scripts.between(schema, before, schema.head):
        effort.say(f"{script.revision}: {script.doc}")
        began = time.monotonic()
        if scripts.is_concurrent(script):
            _index(database, script, effort, only_invalid=False)
            _change(database, schema, script, effort, indexes=ALREADY)
        else:
            _change(database, schema, script, effort)
        effort.say(f"{script.revision}: done in {time.monotonic() - began:.2f} s")


def _index(database: Database, script: Script, effort: Effort, *, only_invalid: bool) -> None:
    """Make a script's indexes; no one waits for them, and they wait for old transactions."""
    with database.engine.connect() as conn:
        conn.execution_options(isolation_level="AUTOCOMMIT")
        _be_patient(conn, database, effort)
        try:
            with indexes.apart(
                conn, only_invalid=only_invalid, say=lambda line: effort.say(f"{script.revision}: {line}")
            ):
                script.module.upgrade()
        except DBAPIError as error:
            if sqlstate(error) not in _BUSY:
                raise
            sessions = database.ask(lambda asked: locks.in_the_way(asked, [], snapshots=True))
            raise _busy(f"the indexes of {script.revision} for {database}", sessions, effort) from error


def _be_patient(conn: Connection, database: Database, effort: Effort) -> None:
    """Let statements outside transactions wait; the session is not used for anything else after that."""
    if database.url.query.get("prepare_threshold") == "none":
        # A pooler would hand the settings on to others.
        return
    conn.detach()
    conn.exec_driver_sql(f"SET lock_timeout TO {round(effort.wait * 1000)}")
    conn.exec_driver_sql("SET statement_timeout TO 0")
    if database.schema is not None:
        conn.exec_driver_sql(f"SET search_path TO {quoted(database.schema)}")


def _change(database: Database, schema: Schema, script: Script, effort: Effort, *, indexes: str | None = None) -> None:
    """Run a script in a transaction that gives up waiting for a lock soon, as often as it takes."""
    statements = scripts.printed(schema, str(script.down_revision), script.revision, "postgresql", indexes=indexes)
    locked = locks.of(statements)
    if indexes is None:
        effort.say(f"{script.revision}: {locked}")
    pauses = Pauses(effort.wait, first=0.5, longest=5.0)
    while True:
        try:
            with database.engine.connect() as conn:
                conn.execution_options(isolation_level="READ COMMITTED")
                locks.take(conn, locked, min(LOCK_SECONDS, effort.wait))
                scripts.run(conn, schema, script.revision, indexes=indexes)
                conn.commit()
                return
        except DBAPIError as error:
            if sqlstate(error) not in {*_BUSY, _TOO_LONG}:
                raise
            sessions = database.ask(lambda conn: locks.in_the_way(conn, locked.relations))
            if (pause := pauses.next()) is None:
                raise _busy(f"{script.revision} for {database}", sessions, effort) from error
            effort.say(f"{script.revision}: {_holders(sessions)}; trying again in {pause:.1f} s")
        time.sleep(pause)


def _busy(what: str, sessions: str, effort: Effort) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"{what} had to wait for more than {effort.wait:g} s; {_holders(sessions)}. End that transaction"
        " (SELECT pg_terminate_backend(…)) or choose a quieter time, then run `runclaim db upgrade` again: it continues"
        " where this one stopped"
    )


def _holders(sessions: str) -> str:
    return f"in the way: {sessions}" if sessions else "what was in the way has ended"
