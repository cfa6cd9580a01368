"""What an error of the database means: decided by inheritance, SQLSTATE and result code; never by a class's name."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import time
from datetime import timedelta

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import exc, text

from runclaim.database import Database
from runclaim.errors import LedgerRefused, LedgerUnavailable
from runclaim.sql.trouble import Trouble, advice, trouble
from tests.ledger.factories import queued_run

PASSING = {Trouble.REPEAT, Trouble.STALE, Trouble.DOUBT}


def of_driver(raised, statement="SELECT 1"):
    """The error as SQLAlchemy raises it."""
    return exc.DBAPIError.instance(statement, None, raised, psycopg.Error, dialect=None)


class TimeOutOfADriver(psycopg.errors.ConnectionTimeout):
    """A driver's next release may have more classes."""


@pytest.mark.parametrize("raised", [errors.ConnectionTimeout, psycopg.OperationalError, TimeOutOfADriver])
def test_an_operational_error_without_a_state_is_a_lost_connection_also_in_a_subclass(raised):
    assert Trouble.DOUBT is trouble(of_driver(raised("nothing came"), statement=None))


class OfAnotherDriver(Exception):
    """psycopg2 has the state elsewhere."""

    pgcode = "40001"


def test_another_drivers_state_is_read_too():
    assert Trouble.REPEAT is trouble(exc.DBAPIError("SELECT 1", None, OfAnotherDriver()))


@pytest.fixture(scope="module")
def speechless():
    """The address of a server that takes connections and packets, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"postgresql+psycopg://ann@127.0.0.1:{listener.getsockname()[1]}/ledger"


def test_a_server_that_never_answers_is_away(speechless):
    away = Database(speechless, patience=timedelta(seconds=0.5))
    began = time.monotonic()

    with pytest.raises(LedgerUnavailable, match="does not answer"):
        away.run(queued_run)
    assert time.monotonic() - began < 30


def settings(database, **changes):
    """Change what the next sessions of the database begin with."""
    with database.engine.connect() as conn:
        admin = conn.execution_options(isolation_level="AUTOCOMMIT")
        admin.exec_driver_sql("SET default_transaction_read_only = off")
        for name, value in changes.items():
            what = "RESET {}" if value is None else "SET {} = {}"
            admin.exec_driver_sql(f"ALTER DATABASE {database.url.database} {what.format(name, value)}")


def test_a_database_that_is_read_only_for_a_while_is_waited_for(postgres):
    """
    INVARIANT: a session that answered as a standby is never used again.

    Breaks if 25006 leaves its session in the pool: each later call would fail although the primary is back.
    """
    seen = Database(postgres.url.render_as_string(hide_password=False), pool_size=1, patience=timedelta(seconds=20))
    settings(postgres, default_transaction_read_only="on")
    tries = []

    def work(conn):
        tries.append(1)
        if len(tries) == 3:
            settings(postgres, default_transaction_read_only=None)
        return queued_run(conn)

    made = seen.run(work)
    later = [seen.run(queued_run) for _ in range(4)]
    seen.close()

    assert len(tries) >= 4
    assert 5 == len({made, *later})


def test_a_database_that_stays_read_only_is_unavailable(postgres):
    settings(postgres, default_transaction_read_only="on")
    seen = Database(postgres.url.render_as_string(hide_password=False), patience=timedelta(seconds=0.2))
    try:
        with pytest.raises(LedgerUnavailable, match="read-only transaction"):
            seen.run(queued_run)
    finally:
        settings(postgres, default_transaction_read_only=None)
        seen.close()


def test_a_statement_that_the_server_ended_for_its_time_is_done_again(postgres):
    tries = []

    def work(conn):
        tries.append(1)
        if len(tries) == 1:
            conn.execute(text("SET LOCAL statement_timeout = '50ms'"))
            conn.execute(text("SELECT pg_sleep(60)"))
        return queued_run(conn)

    assert postgres.run(work)
    assert 2 == len(tries)


def test_plans_that_a_changed_table_made_stale_are_made_anew(postgres):
    """
    INVARIANT: a session whose prepared statements are stale is never used again.

    Breaks if 0A000 is raised, or repeated on the same session: a table that is altered under live processes would
    leave each of them broken for good.
    """
    with postgres.begin() as conn:
        conn.execute(text("CREATE TABLE test_altered (n integer)"))
    seen = Database(postgres.url.render_as_string(hide_password=False), pool_size=3, patience=timedelta(seconds=20))
    read = text("SELECT * FROM test_altered")
    for _ in range(8):
        with seen.read() as one, seen.read() as two:
            one.execute(read).all()
            two.execute(read).all()
    with postgres.begin() as conn:
        conn.execute(text("ALTER TABLE test_altered ALTER COLUMN n TYPE bigint"))
    tries = []

    def work(conn):
        tries.append(1)
        return conn.execute(read).all()

    answers = [seen.run(work) for _ in range(3)]
    seen.close()
    with postgres.begin() as conn:
        conn.execute(text("DROP TABLE test_altered"))

    assert [[], [], []] == answers
    assert 4 == len(tries)


def raising(state):
    """Work that fails with that state on the server, for ever."""
    return lambda conn: conn.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$"))


def test_what_the_server_really_does_not_support_is_told(postgres):
    tries = []

    def work(conn):
        tries.append(1)
        raising("0A000")(conn)

    with pytest.raises(exc.NotSupportedError):
        postgres.run(work)
    assert 4 == len(tries)


@pytest.mark.parametrize("state", ["26000", "42P05"])
def test_a_pooler_that_loses_prepared_statements_is_named_with_its_cure(postgres, state, caplog):
    with pytest.raises(LedgerRefused, match=r"add \?prepare_threshold=none to RUNCLAIM_DATABASE_URL"):
        postgres.run(raising(state))
    assert "prepare_threshold=none" in caplog.text


@pytest.fixture
def stranger(postgres):
    """A role that may connect and has no rights here."""
    name = f"stranger_{postgres.url.database}"
    with postgres.begin() as conn:
        conn.execute(text(f"CREATE ROLE {name} LOGIN"))
    yield name
    with postgres.begin() as conn:
        conn.execute(text(f"DROP ROLE {name}"))


def told_at_once(url, *, words):
    """Fails when it took the patience, or says that another try could help."""
    database = Database(url.render_as_string(hide_password=False), patience=timedelta(seconds=300))
    began = time.monotonic()
    with pytest.raises(LedgerRefused, match=words) as refused:
        database.run(queued_run)
    database.close()

    assert time.monotonic() - began < 60
    assert "try again" not in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"database": "no_such_database"}, "create that database"),
        ({"username": "no_such_role"}, "check the user and the password"),
        ({"query": {"no_such_parameter": "1"}}, "check the parameters"),
    ],
)
def test_a_wrong_database_role_or_parameter_is_told_at_once(postgres, change, words):
    told_at_once(postgres.url.set(password="s3cret", **change), words=words)


def test_a_role_without_rights_is_told_at_once_what_to_grant(postgres, stranger):
    told_at_once(postgres.url.set(username=stranger), words="grant the role USAGE on the schema and what it needs")


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path):
    missing = Database(f"sqlite:///{tmp_path}/missing/ledger.db", patience=timedelta(seconds=300))

    with pytest.raises(LedgerRefused, match="folder exists"):
        missing.run(queued_run)


def test_a_file_that_is_no_database_is_told_at_once(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_text("These are the minutes of the meeting. " * 100)

    with pytest.raises(LedgerRefused, match="not a SQLite database"):
        Database(f"sqlite:///{path}", patience=timedelta(seconds=300)).run(queued_run)


def test_a_file_that_was_opened_before_and_cannot_be_now_is_waited_for(tmp_path, monkeypatch):
    disk, unplugged = tmp_path / "disk", tmp_path / "unplugged"
    disk.mkdir()
    database = Database(f"sqlite:///{disk}/ledger.db", patience=timedelta(seconds=20))
    database.file.touch()
    database.run(lambda conn: conn.execute(text("CREATE TABLE t (n)")))
    database.close()
    disk.rename(unplugged)
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            unplugged.rename(disk)

    monkeypatch.setattr("runclaim.sql.patience.time.sleep", pause)
    answer = database.run(lambda conn: conn.execute(text("SELECT count(*) FROM t")).scalar_one())
    database.close()

    assert (0, 2) == (answer, len(pauses))


@pytest.mark.parametrize("code", ["SQLITE_IOERR", "SQLITE_INTERRUPT", "SQLITE_FULL", "SQLITE_BUSY_SNAPSHOT"])
def test_a_disk_that_fails_for_a_moment_is_waited_for(code):
    raised = sqlite3.OperationalError("of the disk")
    raised.sqlite_errorcode = getattr(sqlite3, code)

    assert trouble(exc.OperationalError("SELECT 1", None, raised)) in PASSING


def test_every_refusal_says_what_to_do():
    """A state that is told at once without a word on its cure would be a riddle."""
    raised = {name: of_driver(errors.lookup(name)("x")) for name in errors._sqlcodes}
    refused = {name for name, error in raised.items() if trouble(error) is Trouble.REFUSED}
    silent = [name for name in refused if not advice(raised[name])]

    assert refused
    assert [] == silent


@pytest.mark.parametrize("at", ["connect", "BEGIN"])
def test_a_locked_file_is_waited_for_no_longer_than_the_patience(tmp_path, at):
    path = tmp_path / "ledger.db"
    database = Database(f"sqlite:///{path}", patience=timedelta(seconds=2))
    database.file.touch()
    if at == "BEGIN":
        database.run(lambda conn: conn.execute(text("CREATE TABLE t (n)")))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="locked"):
            database.run(lambda conn: conn.execute(text("CREATE TABLE t2 (n)")))
    database.close()

    assert time.monotonic() - began < 12
