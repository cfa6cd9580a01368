"""What only SQLite needs: one writer at a time, a file on a disk, a driver with habits of its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import closing, suppress
from datetime import timedelta

import pytest
from sqlalchemy import URL, event, text

from runclaim import migrations
from runclaim.database import Database
from runclaim.errors import LedgerRefused, LedgerUnavailable
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

    assert {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 15000} == found


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

    assert [15] * 3 == [len(each) for each in told]
    assert [0] * 3 == [process.returncode for process in processes]
    with sqlite.read() as conn:
        assert 45 == count(conn, "phase_results")


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
        assert "ok" == conn.exec_driver_sql("PRAGMA integrity_check").scalar()
        assert [] == conn.exec_driver_sql("PRAGMA foreign_key_check").all()
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
        assert 1 == count(conn, "runs")
        assert "ok" == conn.exec_driver_sql("PRAGMA integrity_check").scalar()


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


@pytest.fixture
def own(tmp_path):
    """A ledger in a file that a test may harm, through a pool of one connection."""
    found = Database(f"sqlite:///{tmp_path / 'ledger.db'}", pool_size=1, patience=timedelta(seconds=0.2))
    migrations.upgrade(found)
    yield found
    found.close()


def other_process_reads(file):
    with closing(sqlite3.connect(file)) as other:
        return other.execute("SELECT COUNT(*) FROM runclaim_runs").fetchone()[0]


@pytest.mark.parametrize("verb", ["run", "ask"])
def test_a_file_that_was_deleted_under_the_process_is_told_and_not_made_anew(own, verb):
    """
    INVARIANT: nothing is acknowledged in a file that nobody else sees.

    Breaks if a kept connection is used without a look at the path, or if connecting makes the file.
    """
    own.run(queued_run)
    for each in own.file.parent.glob("ledger.db*"):
        each.unlink()

    with pytest.raises(LedgerUnavailable, match=r"ledger.db is not there: it was deleted, moved or never created"):
        getattr(own, verb)(queued_run if verb == "run" else read.counts)
    assert not own.file.exists()


def test_a_process_goes_on_in_the_file_that_took_the_place_of_its_own(own, tmp_path):
    """As after a backup was moved there: what is told as written is in the file that others open."""
    own.run(lambda conn: queued_run(conn, "pr-1"))
    with closing(sqlite3.connect(own.file)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as target:
        source.backup(target)
    own.run(lambda conn: queued_run(conn, "pr-2"))
    for each in own.file.parent.glob("ledger.db*"):
        each.unlink()
    (tmp_path / "backup.db").rename(own.file)
    own.run(lambda conn: queued_run(conn, "pr-3"))

    assert 2 == other_process_reads(own.file)


def test_what_was_being_written_when_the_file_was_deleted_is_not_acknowledged(own):
    def work(conn):
        run_id = queued_run(conn)
        own.file.unlink()
        return run_id

    with pytest.raises(LedgerUnavailable, match="was deleted or replaced during a write"):
        own.run(work)


def test_looking_whether_the_file_is_there_costs_no_statement(own):
    own.run(queued_run)
    sent = []
    event.listen(own.engine, "before_cursor_execute", lambda _c, _cur, statement, *_: sent.append(statement))
    own.ask(lambda conn: conn.exec_driver_sql("SELECT 1").scalar())

    assert ["BEGIN DEFERRED", "SELECT 1"] == sent


def test_only_the_user_of_the_process_may_read_the_ledger_and_what_lies_beside_it(own):
    before = os.umask(0o000)
    try:
        other = Database(f"sqlite:///{own.file.with_name('open.db')}", patience=timedelta(seconds=1))
        migrations.upgrade(other)
        other.run(queued_run)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in own.file.parent.glob("open.db*")}
    finally:
        other.close()
        os.umask(before)

    assert modes == dict.fromkeys(("open.db", "open.db-wal", "open.db-shm"), 0o600)


@pytest.mark.parametrize("place", ["nowhere/ledger.db", "a-file/ledger.db", ""])
def test_a_file_that_cannot_be_made_is_told_at_once_with_what_to_do(tmp_path, place):
    (tmp_path / "a-file").touch()
    database = Database(f"sqlite:///{tmp_path / place}", patience=timedelta(hours=1))

    with pytest.raises(LedgerRefused, match=r"To fix it: .*folder"):
        migrations.require_current(database)
    assert ["a-file"] == [each.name for each in tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["My Projects.db", "a%2Fb.db", "it's.db", "q#?.db", "日本.db", ";$HOME.db"])
def test_a_file_of_any_name_is_opened(tmp_path, name):
    url = URL.create("sqlite", database=str(tmp_path / name)).render_as_string()
    database = Database(url, patience=timedelta(seconds=1))
    migrations.require_current(database)
    database.run(queued_run)
    database.close()

    assert [name] == [each.name for each in tmp_path.iterdir()]
    assert 1 == other_process_reads(tmp_path / name)


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
    file.touch()
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, f"sqlite:///{file}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert "first\n" == parent.stdout.readline()
    parent.kill()
    parent.wait()
    assert [1] == told_by_another(file)
    parent.stdin.write("go on\n")
    parent.stdin.flush()
    assert "second\n" == parent.stdout.readline()

    assert [1, 2] == told_by_another(file)
    parent.stdin.close()
    parent.stdout.close()


def told_by_another(file):
    """What another process reads, which is the last to close the file if the child holds no lock on it."""
    asked = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(*[x for x, in c.execute('SELECT x FROM told')])"
    )
    found = subprocess.run([sys.executable, "-c", asked, file], capture_output=True, text=True, check=True).stdout
    return [int(word) for word in found.split()]
