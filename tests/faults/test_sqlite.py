"""SQLite: kill -9 between and in commits, a lock that somebody holds, no room, and a fork in a transaction."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from runclaim.errors import LedgerUnavailable
from tests.faults.full_app import NO_LIMIT, limit
from tests.faults.oracle import nothing_lost_or_doubled
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness import Site

KILLS = 8
#: Takes the write lock, says so, and holds it until its input ends.
HOLDER = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
held.execute("ROLLBACK")
"""


@pytest.fixture
def sqlite_site(make_site: Callable[..., Site], sqlite_url: str) -> Site:
    return make_site(sqlite_url)


def test_kill_9_in_a_loop_of_commits_leaves_a_whole_file_and_every_acknowledged_run(sqlite_site: Site):
    """Two processes commit against each other; one after the other is killed after some more of its commits."""
    site = sqlite_site
    chosen = random.Random(7)
    start = lambda name: site.start(name, [sys.executable, "-m", "tests.faults.committer"])  # noqa: E731
    alive = [start("committer-a"), start("committer-b")]
    for kill in range(KILLS):
        enough = len(lines(site, "acknowledged")) + chosen.randrange(4, 40)
        until(lambda: len(lines(site, "acknowledged")) >= enough, "more commits", so_far=site.story)  # noqa: B023
        victim = alive.pop(0)
        victim.kill_all()
        assert file_is_whole(site)
        alive.append(start(f"committer{kill}"))
    for process in alive:
        process.kill_all()

    assert file_is_whole(site)
    recorded = dict(ask(site, "SELECT id, state FROM runclaim_runs"))
    assert set(lines(site, "acknowledged")) <= set(recorded)
    assert {"succeeded"} == {recorded[run_id] for run_id in lines(site, "succeeded")}
    # The application's rows and the ledger's results are of the same commits.
    completed = sorted(ask(site, "SELECT run_id, phase FROM runclaim_phase_results"))
    assert sorted(ask(site, "SELECT run_id, phase FROM harness_rows")) == completed
    assert "running" in recorded.values(), "a kill has to land in the middle of a run"


def test_a_lock_that_somebody_holds_for_seconds_is_waited_for(sqlite_site: Site):
    site = sqlite_site
    site.worker(ready=False)
    site.beat()
    runs = [site.enqueue(f"run{number}", first="gate") for number in range(2)]
    for run in runs:
        site.started(run, "first")
    with ThreadPoolExecutor(1) as clicks:
        with write_lock(site):
            began = time.monotonic()
            click = clicks.submit(site.enqueue, "during")
            site.open("run0", "first")
            site.open("run1", "first")
            # The fault itself: longer than the lease.
            until(lambda: time.monotonic() - began > 5, "five seconds")
            assert not click.done()
        runs.append(click.result())
        waited = time.monotonic() - began

    nothing_lost_or_doubled(site, runs)
    assert 5 < waited < 20


def test_a_full_ledger_refuses_cleanly_and_goes_on_when_there_is_room(make_site: Callable[..., Site], sqlite_url: str):
    site = make_site(sqlite_url, settings={"ledger_patience": "1s"})
    pages = site.folder / "pages"
    limit(site.stage.runs.ledger.database, pages)
    runs = [site.enqueue("before")]
    ((used,),) = ask(site, "PRAGMA page_count")
    pages.write_text(str(used))
    with pytest.raises(LedgerUnavailable, match="full"):
        runs.extend(site.enqueue(f"{number:x<400}") for number in range(1000))

    assert {run_id for (run_id,) in ask(site, "SELECT id FROM runclaim_runs")} == {run.id for run in runs}
    assert file_is_whole(site)
    pages.write_text(str(NO_LIMIT))
    runs.append(site.enqueue("after"))
    site.worker(ready=False)
    nothing_lost_or_doubled(site, runs)


def test_a_worker_whose_ledger_is_full_loses_no_run(sqlite_site: Site):
    site = sqlite_site
    pages = site.folder / "pages"
    worker = site.worker(ready=False, module="tests.faults.full_app")
    site.beat()
    runs = [site.enqueue(f"gated{number}", first="gate") for number in range(2)]
    for run in runs:
        site.started(run, "first")
    # What they will write finds no room in the pages that there are.
    runs += [site.enqueue(f"{number:x<400}") for number in range(20)]
    ((used,),) = ask(site, "PRAGMA page_count")
    pages.write_text(str(used))
    fill(site, used)
    for number in range(2):
        site.open(f"gated{number}", "first")
    worker.said("database or disk is full")
    pages.write_text(str(NO_LIMIT))

    nothing_lost_or_doubled(site, runs)
    assert file_is_whole(site)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_beside_a_transaction_leaves_the_child_a_ledger_it_can_write(sqlite_site: Site):
    """
    INVARIANT: no SQLite transaction is open in another thread while a process forks.

    Breaks if the fork does not wait: the child inherits SQLite's note of a lock that nobody will ever release. A pool
    that replaces a dead child, whose claims are being given back at that moment, did so.
    """
    database, inside, leave = sqlite_site.database, threading.Event(), threading.Event()

    def transaction() -> None:
        with database.begin() as conn:
            conn.execute(text("INSERT INTO harness_rows (name) VALUES ('parent')"))
            inside.set()
            leave.wait(30)

    with ThreadPoolExecutor(1) as beside:
        beside.submit(transaction)
        inside.wait(30)
        threading.Timer(0.5, leave.set).start()
        child = os.fork()
        if child == 0:
            write_in_child_and_exit(sqlite_site)
        _, status = os.waitpid(child, 0)

    assert 0 == os.waitstatus_to_exitcode(status)
    assert [("child",), ("parent",)] == sorted(ask(sqlite_site, "SELECT name FROM harness_rows"))


def write_in_child_and_exit(site: Site) -> None:
    signal.alarm(20)
    with contextlib.suppress(BaseException):
        with site.database.begin() as conn:
            conn.execute(text("INSERT INTO harness_rows (name) VALUES ('child')"))
        os._exit(0)
    os._exit(1)


@contextlib.contextmanager
def write_lock(site: Site) -> Iterator[None]:
    """Another process holds the file's write lock."""
    command = [sys.executable, "-c", HOLDER, str(site.database.url.database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert "held\n" == holder.stdout.readline()
        yield
        holder.stdin.close()
        holder.wait(30)


def fill(site: Site, pages: int) -> None:
    """Write until the file has no free page left below `pages`."""
    with contextlib.closing(sqlite3.connect(str(site.database.url.database), timeout=20)) as file:
        file.execute(f"PRAGMA max_page_count = {pages}")
        with contextlib.suppress(sqlite3.OperationalError):
            while True:
                file.execute("INSERT INTO runclaim_counters VALUES (hex(randomblob(20)), hex(randomblob(400)), 1)")
                file.commit()


def lines(site: Site, name: str) -> list[str]:
    file: Path = site.folder / name
    return [line for line in file.read_text().split("\n")[:-1] if line] if file.exists() else []


def file_is_whole(site: Site) -> bool:
    return ask(site, "PRAGMA integrity_check") == [("ok",)] and ask(site, "PRAGMA foreign_key_check") == []


def ask(site: Site, question: str) -> list[tuple[object, ...]]:
    """Past the ledger's own code, so that a damaged file is not mended on the way."""
    with contextlib.closing(sqlite3.connect(str(site.database.url.database), timeout=20)) as file:
        return file.execute(question).fetchall()
