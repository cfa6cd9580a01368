"""What only SQLite needs: one writer at a time, a file on a disk, a driver with habits of its own."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest
from sqlalchemy import event, text

from runclaim.errors import LedgerUnavailable
from runclaim.ledger import read
from tests.ledger.concurrency import together
from tests.ledger.factories import claimed_run, finish, queued_run
from tests.ledger.sql import count

PROCESS = """
    import sys
    from datetime import timedelta
    from runclaim.database import Database
    from runclaim.keys import nonce
    from tests.ledger.factories import claim_again, finish, queued_run

    database = Database(sys.argv[1], patience=timedelta(seconds=30))
    def work(conn):
        return finish(conn, claim_again(conn, queued_run(conn, nonce())))
    while sys.stdin.readline():
        moved = database.run(work)
        print(moved.run_id, flush=True)
"""


@pytest.fixture
def writer(sqlite):
    """Starts processes that make and complete a run for every line they are sent, and say which."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROCESS), str(sqlite.url)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def raw(sqlite):
    """Another program's connection to the same file, which waits for nobody."""
    return sqlite3.connect(sqlite.url.database, timeout=0, isolation_level=None)


def test_a_ledger_is_durable_and_keeps_its_foreign_keys(sqlite):
    with sqlite.read() as conn:
        found = {name: conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in (
            "journal_mode", "synchronous", "foreign_keys", "busy_timeout"
        )}  # fmt: skip

    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 15000}


def test_a_transaction_that_reads_first_already_holds_the_right_to_write(sqlite):
    """
    INVARIANT: what a write transaction has read stays so until it commits.

    Breaks if the driver opens its own transactions (a SELECT would stand outside), or with a plain BEGIN (a read
    that turns into a write fails at once, whatever the timeout).
    """
    other = raw(sqlite)
    with sqlite.begin() as conn:
        read.counts(conn)

        assert conn.connection.dbapi_connection.in_transaction
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.close()


def test_reading_waits_for_no_writer_and_no_writer_for_it(sqlite):
    with sqlite.begin() as writing:
        run_id = queued_run(writing)
        with sqlite.read() as reading:
            assert read.run(reading, run_id) is None
    with sqlite.read() as reading:
        assert read.run(reading, run_id) is not None
        sqlite.run(queued_run)


@pytest.mark.parametrize("ends", ["commits", "raises"])
def test_a_connection_goes_back_to_the_pool_with_no_transaction_open(sqlite, ends):
    """
    INVARIANT: an idle connection keeps nobody from writing.

    Breaks with `skip_autocommit_rollback=True`: the driver's isolation_level None looks like autocommit, the
    ROLLBACK is skipped and the file stays locked.
    """

    def work(conn):
        queued_run(conn)
        if ends == "raises":
            raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        sqlite.run(work)
    other = raw(sqlite)
    other.execute("BEGIN IMMEDIATE")
    other.close()
    with sqlite.engine.connect() as conn:
        assert not conn.connection.dbapi_connection.in_transaction


def test_processes_that_write_at_once_wait_for_each_other_and_never_fail(sqlite, writer):
    """
    INVARIANT: contention costs time and nothing else.

    Breaks with BEGIN DEFERRED: a transaction that reads first fails with SQLITE_BUSY_SNAPSHOT at once.
    """
    processes = [writer() for _ in range(3)]
    told = [process.communicate("\n" * 15, timeout=60)[0].split() for process in processes]

    assert [len(each) for each in told] == [15] * 3
    assert [process.returncode for process in processes] == [0] * 3
    with sqlite.read() as conn:
        assert count(conn, "phase_results") == 45


def test_what_a_killed_process_was_told_is_in_the_file_and_the_file_is_sound(sqlite, writer):
    """
    INVARIANT: a completion that was told is in the ledger.

    Breaks with synchronous=OFF under a power cut; under SIGKILL if anything is acknowledged before its COMMIT.
    """
    told = []
    for _ in range(3):
        process = writer()
        process.stdin.write("\n" * 1000)
        process.stdin.flush()
        told += [process.stdout.readline().strip() for _ in range(8)]
        process.send_signal(signal.SIGKILL)
        told += process.communicate()[0].split()[:-1]

    with sqlite.read() as conn:
        assert conn.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert conn.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert set(told) <= {run_id for (run_id,) in conn.execute(text("SELECT run_id FROM runclaim_phase_results"))}


def test_a_full_disk_is_told_and_the_ledger_goes_on_when_there_is_room_again(sqlite):
    def fill(conn):
        conn.exec_driver_sql("PRAGMA max_page_count = 1")
        for _ in range(200):
            queued_run(conn, input={"text": "x" * 10_000})

    with pytest.raises(LedgerUnavailable, match="full"):
        sqlite.run(fill, patience=0.1)
    sqlite.close()

    assert sqlite.run(queued_run)
    with sqlite.read() as conn:
        assert count(conn, "runs") == 1
        assert conn.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def test_a_writer_that_holds_the_file_too_long_is_told_as_a_ledger_that_does_not_answer(sqlite):
    def impatient(raw, _record, _proxy):
        raw.execute("PRAGMA busy_timeout = 10")

    event.listen(sqlite.engine, "checkout", impatient)
    other = raw(sqlite)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LedgerUnavailable, match="locked"):
            sqlite.run(queued_run, patience=0.1)
    finally:
        other.close()
        event.remove(sqlite.engine, "checkout", impatient)
        sqlite.close()


def test_threads_that_write_at_once_wait_for_each_other(sqlite):
    claims = together(12, lambda _: sqlite.run(claimed_run))

    assert all(together(12, lambda number: sqlite.run(lambda conn: finish(conn, claims[number]))))


ORPHAN = """
import os, sys
from datetime import timedelta
from sqlalchemy import text
from runclaim.database import Database

database = Database(sys.argv[1], patience=timedelta(seconds=5))
database.run(lambda conn: conn.execute(text("CREATE TABLE told (x)")))
if os.fork() == 0:
    database.run(lambda conn: conn.execute(text("INSERT INTO told VALUES (1)")))
    print("first", flush=True)
    sys.stdin.readline()
    database.run(lambda conn: conn.execute(text("INSERT INTO told VALUES (2)")))
    print("second", flush=True)
    sys.stdin.readline()
    os._exit(0)
sys.stdin.readline()
os._exit(0)
"""


def test_a_forked_child_keeps_what_it_commits_after_its_parent_is_gone(tmp_path):
    """
    INVARIANT: no SQLite connection outlives a fork: a child would believe in locks that end with its parent.

    Breaks if the pool is not emptied before the fork: whoever closes the file last removes the child's journal.
    """
    file = tmp_path / "ledger.db"
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, f"sqlite:///{file}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert parent.stdout.readline() == "first\n"
    parent.kill()
    parent.wait()
    assert told_by_another(file) == [1]
    parent.stdin.write("go on\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == "second\n"

    assert told_by_another(file) == [1, 2]
    parent.stdin.close()
    parent.stdout.close()


def told_by_another(file):
    """What another process reads, which is the last to close the file if the child holds no lock on it."""
    asked = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(*[x for x, in c.execute('SELECT x FROM told')])"
    )
    found = subprocess.run([sys.executable, "-c", asked, file], capture_output=True, text=True, check=True).stdout
    return [int(word) for word in found.split()]
