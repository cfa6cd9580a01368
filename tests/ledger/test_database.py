"""`Database.run`: what is repeated, what is asked about, what is told."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import warnings
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from runclaim import forks
from runclaim.database import Database
from runclaim.errors import ClaimLost, ConfigError, LedgerUnavailable
from runclaim.ledger import read
from runclaim.ledger.enqueue import enqueue
from runclaim.sql import engines
from runclaim.sql.trouble import Trouble, trouble
from tests.ledger.concurrency import Actor, together, until
from tests.ledger.factories import new_run, queued_run
from tests.ledger.sql import count

PATIENCE = timedelta(seconds=20)
OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
PID = text("SELECT pg_backend_pid()")
PREPARED = text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT pg_backend_pid%'")


@pytest.fixture
def small(postgres):
    """The same database through a pool of one connection, and what overflows it."""
    found = Database(postgres.url.render_as_string(hide_password=False), pool_size=1, patience=PATIENCE)
    yield found
    found.close()


def test_work_is_committed_once_its_answer_is_told(database):
    run_id = database.run(queued_run)

    with database.read() as conn:
        assert read.standing(conn, run_id) is not None


def test_work_that_raises_leaves_nothing(database):
    def work(conn):
        queued_run(conn)
        raise ClaimLost("run", "plan", 1)

    with pytest.raises(ClaimLost):
        database.run(work)
    with database.read() as conn:
        assert 0 == count(conn, "runs")


def test_an_error_that_repeating_would_not_help_is_raised_at_once(database):
    tried = []

    def work(conn):
        tried.append(1)
        conn.execute(text("SELECT no_such_column FROM runclaim_runs"))

    with pytest.raises(DBAPIError) as refused:
        database.run(work)
    assert 1 == len(tried)
    assert trouble(refused.value) is Trouble.FATAL


def test_a_violated_constraint_is_not_repeated(database):
    run = new_run()

    def work(conn):
        enqueue(conn, [run])
        conn.execute(text("INSERT INTO runclaim_runs SELECT * FROM runclaim_runs"))

    with pytest.raises(IntegrityError):
        database.run(work)


def test_a_connection_that_the_server_ended_is_made_anew(postgres):
    run_id = postgres.run(queued_run)
    with Actor(postgres), postgres.begin():
        pass
    with Actor(postgres) as administrator:
        ended = administrator.do(lambda conn: conn.execute(text(f"SELECT pg_terminate_backend(pid) {OTHERS}")).all())

    assert ended
    assert [0] * 5 == [postgres.run(lambda conn: read.standing(conn, run_id)).fence for _ in range(5)]


def test_a_connection_that_dies_under_the_work_is_repeated_on_another(postgres):
    tried = []

    def work(conn):
        tried.append(conn.execute(PID).scalar_one())
        run_id = queued_run(conn, "pr-7")
        if len(tried) == 1:
            with Actor(postgres) as killer:
                killer.do(lambda other: other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": tried[0]}))
            conn.execute(PID)
        return run_id

    run_id = postgres.run(work)

    assert 2 == len(set(tried))
    with postgres.read() as conn:
        assert [run_id] == list(read.states(conn, [run_id]))
        assert 1 == count(conn, "runs")


def test_a_ledger_that_cannot_be_reached_is_told_without_its_password():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    away = Database(f"postgresql+psycopg://ann:s3cret@127.0.0.1:{port}/ledger", patience=timedelta(seconds=0.1))

    with pytest.raises(LedgerUnavailable, match="does not answer") as refused:
        away.run(queued_run)
    assert "s3cret" not in str(refused.value)


def test_a_ledger_that_comes_back_in_time_is_waited_for(postgres):
    """Also when every connection of the pool is dead: each would otherwise cost a try."""
    postgres.run(queued_run)
    refuse(postgres, allowed=False)
    timer = threading.Timer(0.3, refuse, [postgres], {"allowed": True})
    timer.start()

    assert postgres.run(queued_run)
    timer.join()


def refuse(database, *, allowed):
    name = database.url.database
    server = Database(database.url.set(database="postgres").render_as_string(hide_password=False), patience=PATIENCE)
    with server.engine.connect() as conn:
        admin = conn.execution_options(isolation_level="AUTOCOMMIT")
        admin.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")
        if not allowed:
            admin.exec_driver_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    server.close()


def test_more_callers_than_connections_wait_for_their_turn(small):
    assert 30 == len(set(together(30, lambda _: small.run(queued_run))))


def test_a_child_process_never_uses_its_parents_connection(small):
    """
    INVARIANT: two processes never speak on one socket.

    Breaks if a fork leaves the parent's connections in the child's pool.
    """
    mine = small.run(lambda conn: conn.execute(PID).scalar_one())
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            found = small.run(lambda conn: conn.execute(PID).scalar_one())
            os.write(telling, str(found).encode())
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    childs = int(os.read(told, 100))

    assert (0, True) == (status, childs != mine)
    assert small.run(lambda conn: conn.execute(PID).scalar_one()) == mine


def test_a_repeated_refusal_is_a_refusal(database):
    """Without a lost connection nothing is in doubt: the ledger is not asked again."""
    asked = []

    def work(conn):
        raise ClaimLost("run", "plan", 1)

    with pytest.raises(ClaimLost):
        database.run(work, read_back=lambda conn: asked.append(1))
    assert [] == asked


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_ledger_in_memory_is_refused(url):
    with pytest.raises(ConfigError, match="does not name a plain file"):
        Database(url, patience=timedelta(seconds=1))


def test_statements_are_prepared_once_on_a_kept_connection(postgres):
    """
    INVARIANT: the text of a verb's statement does not depend on how many runs it gets.

    Breaks if a statement lists its rows: every number of runs would be planned anew.
    """
    seen = set()

    def note(_conn, _cursor, statement, *_):
        seen.add(statement)

    def work(conn, many):
        for each in enqueue(conn, [new_run(subject="pr-7") for _ in range(many)]):
            read.run(conn, each.run_id)

    event.listen(postgres.engine, "before_cursor_execute", note)
    try:
        for many in (1, 2, 3, 50):
            postgres.run(partial(work, many=many))
    finally:
        event.remove(postgres.engine, "before_cursor_execute", note)

    assert 7 == len(seen)


def test_an_error_of_a_statement_does_not_show_its_values(database):
    """Long ones would be cut in the middle, and half a secret looks like none."""
    with pytest.raises(DBAPIError) as failed:
        database.run(lambda conn: conn.execute(text("SELECT :value + nothing"), {"value": "x" * 1000}))

    assert "xxx" not in str(failed.value)
    assert "SELECT" in str(failed.value)


def test_threads_that_come_at_once_share_one_engine(database):
    """Of two engines one would be forgotten, with its connections open."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            fresh = Database(database.url.render_as_string(hide_password=False), patience=timedelta(seconds=5))
            assert 1 == len({id(engine) for engine in together(8, lambda _, fresh=fresh: fresh.engine)})
            fresh.close()
    finally:
        sys.setswitchinterval(before)


def test_a_forked_child_finds_a_lock_open_that_another_thread_held(database):
    lock = forks.Lock()
    with lock:
        child = os.fork()
        if not child:
            with lock:
                os._exit(0)
        assert 0 == os.waitpid(child, 0)[1]


def test_a_database_that_is_forgotten_closes_its_connections(postgres):
    def used():
        forgotten = Database(postgres.url.render_as_string(hide_password=False), patience=PATIENCE)
        return together(
            6, lambda _: forgotten.ask(lambda conn: conn.exec_driver_sql("SELECT pg_backend_pid()").scalar())
        )

    pids = set(used())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()

    still_there = text("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(:pids)")
    until(lambda: postgres.ask(lambda conn: conn.execute(still_there, {"pids": list(pids)}).scalar()) == 0, what="ends")


@pytest.mark.postgres
@pytest.mark.parametrize("told, many", [("none", 0), ("0", 1)])
def test_a_url_may_say_when_statements_are_prepared(postgres, told, many):
    """For poolers that hand each transaction another session, where a prepared statement is somebody else's."""
    url = postgres.url.update_query_dict({"prepare_threshold": told}).render_as_string(hide_password=False)
    database = Database(url, pool_size=1, patience=PATIENCE)
    for _ in range(10):
        database.run(lambda conn: conn.execute(PID))
    kept = database.ask(lambda conn: conn.execute(PREPARED).scalar_one())
    database.close()

    assert kept == many


def test_a_url_that_says_it_wrongly_is_refused():
    database = Database("postgresql+psycopg://localhost/ledger?prepare_threshold=never", patience=PATIENCE)

    with pytest.raises(ConfigError, match="prepare_threshold"):
        _ = database.engine


@pytest.mark.parametrize(
    "setting, value",
    [
        ("DateStyle", "'SQL, DMY'"),
        ("DateStyle", "German"),
        ("DateStyle", "'Postgres, MDY'"),
        ("client_encoding", "LATIN1"),
        ("client_encoding", "SQL_ASCII"),
        ("IntervalStyle", "sql_standard"),
        ("extra_float_digits", "-15"),
        ("bytea_output", "escape"),
        ("standard_conforming_strings", "off"),
        ("lc_messages", "'C'"),
    ],
)
def test_what_the_role_or_the_database_sets_for_its_sessions_changes_nothing(postgres, setting, value):
    """
    INVARIANT: what the ledger needs of its session is set, not assumed.

    Breaks if a new connection leaves one of these settings as it finds it.
    """
    alter = f"ALTER DATABASE {postgres.url.database}"
    with postgres.begin() as conn:
        conn.exec_driver_sql(f"{alter} SET {setting} TO {value}")
    seen = Database(postgres.url.render_as_string(hide_password=False), patience=PATIENCE)
    try:
        run_id = seen.run(lambda conn: queued_run(conn, "日本", input={"text": "naïve 日本"}))
        view = seen.ask(lambda conn: read.run(conn, run_id))
        journal = seen.ask(lambda conn: read.journal(conn, run_id))
    finally:
        seen.close()
        with postgres.begin() as conn:
            conn.exec_driver_sql(f"{alter} RESET {setting}")

    assert ["日本", {"text": "naïve 日本"}] == [view.key, view.input]
    assert timedelta(0) <= journal[0].at - view.enqueued_at < timedelta(minutes=1)


@pytest.mark.parametrize("name, value", [("PGDATESTYLE", "German"), ("PGCLIENTENCODING", "LATIN1")])
def test_what_the_environment_sets_for_every_client_changes_nothing(postgres, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    seen = Database(postgres.url.render_as_string(hide_password=False), patience=PATIENCE)
    run_id = seen.run(lambda conn: queued_run(conn, "日本"))
    view = seen.ask(lambda conn: read.run(conn, run_id))
    seen.close()

    assert "日本" == view.key


def test_the_settings_of_a_session_cost_nothing_where_they_are_right(postgres):
    with postgres.read() as conn:
        executed = []
        raw = conn.connection.driver_connection
        hold = raw.execute
        raw.execute = lambda *words: executed.append(words) or hold(*words)
        engines._prepare_postgresql(raw, None)
        del raw.execute

    assert [] == executed


@pytest.mark.postgres
def test_a_statement_by_itself_opens_no_transaction_also_after_one(postgres):
    """Breaks if a connection is given back as its transaction left it: each statement would cost BEGIN and COMMIT."""
    database = Database(postgres.url.render_as_string(hide_password=False), pool_size=1, patience=timedelta(seconds=5))
    seen = []
    for way in (database.begin, database.at_once, database.begin, database.read):
        with way() as conn:
            conn.execute(text("SELECT 1"))
            seen.append(conn.connection.driver_connection.info.transaction_status.name)
    database.close()

    assert ["INTRANS", "IDLE", "INTRANS", "IDLE"] == seen
