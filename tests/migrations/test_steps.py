"""An upgrade of tables in use: it waits in no one's way, says what it does, and can be started again at any point."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from runclaim import migrations
from runclaim.database import Database
from runclaim.errors import LedgerUnavailable
from runclaim.migrations import locks, steps
from tests.harness import until
from tests.ledger.concurrency import Actor, together
from tests.migrations.additive import executed
from tests.migrations.later_release import ADD_COLUMN, ADD_INDEX, next_to, with_script

LATER = next_to(migrations.HEAD)
#: Tables that an alphabet would lock in another order than the ledger's verbs do.
SEVERAL = "\n    ".join(
    f'op.add_column("runclaim_{table}", sa.Column("colour", sa.Text()))' for table in ("runs", "run_keys", "subjects")
)
UNIQUE = 'add_index("uq_later", "runclaim_counters", ["value"], unique=True)'


@pytest.fixture
def database(ledger_postgres):
    """The tables of this release, on PostgreSQL."""
    return ledger_postgres


@pytest.fixture
def lines():
    """What an upgrade says."""
    return []


def validity(database, name):
    """Whether an index is valid; `None` without one."""
    with database.read() as conn:
        found = conn.exec_driver_sql(f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('{name}')")
        return found.scalar()


def reads(conn):
    conn.exec_driver_sql("SELECT count(*) FROM runclaim_runs").scalar()


def test_an_upgrade_says_what_it_locks_before_it_does_and_how_long_it_took(database, tmp_path, lines):
    migrations.upgrade(database, with_script(tmp_path, ADD_COLUMN), say=lines.append)

    assert [
        f"{LATER}: A later script.",
        f"{LATER}: locks runclaim_runs: readers and writers wait",
    ] == lines[:2]
    assert lines[2].startswith(f"{LATER}: done in ")


def test_an_upgrade_with_a_transaction_in_its_way_lets_others_pass_names_it_and_tries_again(database, tmp_path, lines):
    """
    INVARIANT: no one waits for longer than two seconds behind an upgrade that waits.

    Breaks without a limit for its locks: a reader would queue behind it, as long as the transaction in its way lasts.
    """
    with Actor(database) as idle, Actor(database) as other, ThreadPoolExecutor(1) as thread:
        idle.do(reads)
        upgrade = thread.submit(
            migrations.upgrade, database, with_script(tmp_path, ADD_COLUMN), wait=90, say=lines.append
        )
        with database.engine.connect() as watcher:
            until(lambda: waits_for(watcher, idle.pid), "the upgrade behind the transaction")
        # Less than the patience of a session of ours.
        other.do(lambda conn: conn.exec_driver_sql("SET LOCAL lock_timeout TO '10s'"))
        other.do(reads)
        other.roll_back()
        until(lambda: [line for line in lines if "in the way" in line], "a try that gave up")
        idle.roll_back()
        upgrade.result(60)
    given_up = next(line for line in lines if "in the way" in line)

    assert f"in the way: session {idle.pid} (idle in transaction for" in given_up
    assert "user postgres, application runclaim); trying again in" in given_up
    assert LATER == migrations.current(database)


def test_an_upgrade_that_waits_in_vain_changes_nothing_and_says_what_to_do(database, tmp_path):
    with Actor(database) as idle:
        idle.do(reads)
        with pytest.raises(LedgerUnavailable, match=f"wait for more than 0.3 s; in the way: session {idle.pid}"):
            migrations.upgrade(database, with_script(tmp_path, ADD_COLUMN), wait=0.3)

    assert migrations.HEAD == migrations.current(database)


def test_one_transaction_in_the_way_of_a_second_script_keeps_the_first(database, tmp_path):
    first = with_script(tmp_path, 'op.create_table("runclaim_later", sa.Column("id", sa.Integer()))')
    second = with_script(tmp_path, ADD_COLUMN, after=first)
    with Actor(database) as idle:
        idle.do(reads)
        with pytest.raises(LedgerUnavailable):
            migrations.upgrade(database, second, wait=0.3)

    assert LATER == migrations.current(database)
    assert (LATER, second.head) == migrations.upgrade(database, second)


def test_an_upgrade_that_loses_a_deadlock_tries_again(database, tmp_path, lines):
    """Breaks if only a lock that was not given in time is waited for: who reads may go by any order."""
    later = with_script(tmp_path, SEVERAL)
    with Actor(database) as reader, ThreadPoolExecutor(1) as thread:
        reader.do(lambda conn: conn.exec_driver_sql("SET deadlock_timeout TO '1min'"))
        reader.do(reads)
        upgrade = thread.submit(migrations.upgrade, database, later, wait=90, say=lines.append)
        with database.engine.connect() as watcher:
            until(lambda: waits_for(watcher, reader.pid), "the upgrade behind the reader")
            reader.do(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM runclaim_run_keys").scalar())
        reader.roll_back()
        upgrade.result(60)

    assert LATER == migrations.current(database)
    assert [line for line in lines if "trying again" in line]


def test_an_upgrade_takes_all_locks_at_once_in_the_order_of_the_ledger(database, tmp_path):
    """
    INVARIANT: all locks of a script together are waited for no longer than one; verbs and upgrades do not deadlock.

    Breaks if a script takes them as it comes to them: each may be waited for while those before it are held.
    """
    with executed(database) as statements:
        migrations.upgrade(database, with_script(tmp_path, SEVERAL))
    first = statements.index("SET LOCAL lock_timeout TO 2000")

    assert [
        "SET LOCAL statement_timeout TO 2000",
        "LOCK TABLE runclaim_run_keys, runclaim_subjects, runclaim_runs IN ACCESS EXCLUSIVE MODE",
        "SET LOCAL statement_timeout TO 0",
    ] == statements[first + 1 : first + 4]
    assert all("ALTER TABLE" not in statement for statement in statements[:first])


def test_locks_that_are_each_given_in_time_and_together_too_late_are_given_back(database, tmp_path, lines):
    """Breaks if each lock has a limit of its own: everyone would wait for the sum of them."""
    later = with_script(tmp_path, SEVERAL)
    with Actor(database) as first, Actor(database) as second, ThreadPoolExecutor(1) as thread:
        first.do(lambda conn: conn.exec_driver_sql("SELECT count(*) FROM runclaim_run_keys").scalar())
        second.do(reads)
        upgrade = thread.submit(migrations.upgrade, database, later, wait=90, say=lines.append)
        with database.engine.connect() as watcher:
            until(lambda: waits_for(watcher, first.pid), "the upgrade behind the first table")
            first.roll_back()
        until(lambda: [line for line in lines if "in the way" in line], "a try that gave up")
        second.roll_back()
        upgrade.result(60)

    assert LATER == migrations.current(database)


def waits_for(conn, pid):
    waiting = conn.exec_driver_sql(
        f"SELECT count(*) FROM pg_stat_activity WHERE {pid} = ANY(pg_blocking_pids(pid))"
    ).scalar()
    conn.rollback()
    return waiting


def test_a_script_of_indexes_makes_them_on_both_databases(ledger_database, tmp_path):
    migrations.upgrade(ledger_database, with_script(tmp_path, ADD_INDEX, concurrently=True))

    with ledger_database.read() as conn:
        assert "ix_later" in {index["name"] for index in inspect(conn).get_indexes("runclaim_runs")}
    assert LATER == migrations.current(ledger_database)


def test_an_index_that_failed_half_way_is_made_again(database, tmp_path, lines):
    """
    INVARIANT: a revision says that its indexes are there and are used.

    Breaks if a script of indexes is recorded before they are made, or one is taken as made because its name is there.
    """
    later = with_script(tmp_path, UNIQUE, concurrently=True)
    with database.begin() as conn:
        conn.exec_driver_sql("INSERT INTO runclaim_counters VALUES ('a', 'f', 1), ('b', 'f', 1)")
    with pytest.raises(IntegrityError):
        migrations.upgrade(database, later)
    half_way = migrations.current(database), validity(database, "uq_later")
    with database.begin() as conn:
        conn.exec_driver_sql("DELETE FROM runclaim_counters")
    migrations.upgrade(database, later, say=lines.append)

    assert (migrations.HEAD, False) == half_way
    assert f"{LATER}: makes uq_later again, which is invalid; no one waits for it" in lines
    assert (LATER, True) == (migrations.current(database), validity(database, "uq_later"))


def test_an_index_that_became_invalid_is_made_again_by_any_later_upgrade_and_a_dropped_one_is_not(database, tmp_path):
    two = f"{ADD_INDEX}\n    {UNIQUE}"
    later = with_script(tmp_path, two, concurrently=True)
    migrations.upgrade(database, later)
    with database.begin() as conn:
        conn.exec_driver_sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'uq_later'::regclass")
        conn.exec_driver_sql("DROP INDEX ix_later")
    migrations.upgrade(database, later)

    assert (True, None) == (validity(database, "uq_later"), validity(database, "ix_later"))


def test_an_index_waits_for_an_old_transaction_and_no_one_waits_for_the_index(database, tmp_path):
    later = with_script(tmp_path, ADD_INDEX, concurrently=True)
    writing = threading.Event()
    with Actor(database, isolation="REPEATABLE READ") as backup, ThreadPoolExecutor(1) as thread:
        backup.do(reads)
        upgrade = thread.submit(migrations.upgrade, database, later, wait=5.0)
        with database.engine.connect() as watcher:
            until(lambda: waits_for(watcher, backup.pid), "the index behind the old transaction")
        with database.begin() as conn:
            conn.exec_driver_sql("SET LOCAL lock_timeout TO '1s'")
            conn.exec_driver_sql("UPDATE runclaim_runs SET worker = 'w'")
            writing.set()
        with pytest.raises(LedgerUnavailable, match=f"indexes of {LATER} .* in the way: session {backup.pid}"):
            upgrade.result(60)
    migrations.upgrade(database, later)

    assert writing.is_set()
    assert validity(database, "ix_later")


def test_upgrades_at_once_do_not_keep_an_index_waiting_for_their_turn(database, tmp_path):
    """Breaks if a process waits for its turn inside a statement: its snapshot is older than the index, for ever."""
    later = with_script(tmp_path, ADD_INDEX, concurrently=True)
    found = together(3, lambda _: migrations.upgrade(database, later, wait=60))

    assert [(migrations.HEAD, LATER), (LATER, LATER), (LATER, LATER)] == sorted(found)


def test_an_upgrade_waits_for_its_turn_as_long_as_it_was_told(database, tmp_path):
    with Actor(database) as other:
        other.do(lambda conn: conn.exec_driver_sql(steps._TRY_LOCK))
        with pytest.raises(LedgerUnavailable, match="another process has been upgrading"):
            migrations.upgrade(database, with_script(tmp_path, ADD_COLUMN), wait=0.2)

    assert migrations.HEAD == migrations.current(database)


@pytest.mark.parametrize("query, limit", [("", "18s"), ("?prepare_threshold=none", "0")])
def test_no_session_keeps_the_patience_of_an_upgrade(database, tmp_path, query, limit):
    """Breaks if the session of the indexes goes back to the pool, or to that of a pooler, with its own limits."""
    url = database.url.render_as_string(hide_password=False) + query
    apart = Database(url, pool_size=1, patience=timedelta(seconds=20))
    migrations.upgrade(apart, with_script(tmp_path, ADD_INDEX, concurrently=True))
    with apart.read() as conn:
        found = conn.exec_driver_sql("SHOW lock_timeout").scalar()
    apart.close()

    assert limit == found


@pytest.mark.parametrize(
    "statements, words",
    [
        ("ALTER TABLE a ADD COLUMN x TEXT;\n\nALTER TABLE a ADD COLUMN y TEXT;", "locks a: readers and writers wait"),
        ("CREATE TABLE b (\n    FOREIGN KEY(run) REFERENCES a (id)\n);", "locks a: writers wait"),
        ("CREATE UNIQUE INDEX i ON a (x);", "locks a: writers wait"),
        ("CREATE INDEX CONCURRENTLY i ON a (x);", "locks no table that is in use"),
        ("CREATE TABLE b (id TEXT);\n\nCREATE INDEX i ON b (id);", "locks no table that is in use"),
        (
            "ALTER TABLE a ADD COLUMN x TEXT;\nDROP INDEX i;\nCREATE INDEX j ON c (x);",
            "locks a, the table of i: readers and writers wait; locks c: writers wait",
        ),
    ],
)
def test_what_statements_lock_is_said_in_words(statements, words):
    assert words == str(locks.of(statements))
