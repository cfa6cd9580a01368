"""
SIGSTOP beyond the lease, then SIGCONT: the stalled worker comes back with a claim that is no longer current.

The failpoints stop a pool child at an exact place; `pause` stops a whole worker, as a suspended machine does.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from tests.faults.oracle import happened, is_so, nothing_lost_or_doubled, stopped_child
from tests.harness import until

if TYPE_CHECKING:
    from runclaim import Run
    from tests.harness import Process, Site

REFUSED = "claimlost, attempt 1"


def test_a_suspended_worker_cannot_complete_what_another_completed(either_site: Site):
    """
    INVARIANT: only the newest claim completes a phase; the rows of a stale one are rolled back with it.

    Breaks if the completing transaction does not compare the fence, or if the rows have a transaction of their own.
    """
    site = either_site
    stale = site.worker(concurrency=1)
    run = site.enqueue("suspended", second="gate")
    site.started(run, "second")
    suspend(site, stale)
    site.worker(ready=False)
    site.beat()
    site.started(run, "second", times=2)
    site.open("suspended", "second")
    site.ended(run)
    stale.resume()
    stale.said(REFUSED)

    nothing_lost_or_doubled(site, [run])
    assert [1, 2] == [start.attempt for start in site.starts(run, "second")][:2]
    assert happened(site, run, "phase.rescued") >= 1


def test_a_stalled_child_cannot_complete_what_another_still_works_on(either_site: Site):
    run, child = stopped_at(either_site, "body.after", "taken-over", first="again")
    either_site.started(run, "first", times=2)
    os.kill(child, signal.SIGCONT)
    either_site.processes[0].said(REFUSED)
    either_site.open("taken-over", "first")

    nothing_lost_or_doubled(either_site, [run])
    assert happened(either_site, run, "phase.rescued") >= 1


@pytest.mark.parametrize(
    "place,body_ran",
    [("claim.after_commit", False), ("body.before", False), ("body.after", True), ("complete.before_cas", True)],
)
def test_a_child_that_stalls_at_any_place_of_its_claim_comes_back_too_late(site: Site, place: str, body_ran: bool):
    """At `complete.before_cas` its rows are already written, in a transaction that is still open."""
    run, child = stopped_at(site, place, "stalled")
    site.ended(run)
    os.kill(child, signal.SIGCONT)
    site.processes[0].said(REFUSED)

    nothing_lost_or_doubled(site, [run])
    assert happened(site, run, "phase.rescued") >= 1
    # After the stall the body ran once more, too late, where it had not run before.
    assert len(site.starts(run, "first")) >= 2
    assert any(start.attempt > 1 for start in site.starts(run, "first"))
    if not body_ran:
        assert 1 == site.starts(run, "first")[-1].attempt


def test_a_child_that_stalls_with_its_completion_all_but_committed_keeps_it(site: Site):
    """
    The row is locked by the completing transaction: rescue passes it over, and the phase does not start again.

    The next phase was claimed in that same transaction, so its lease has lapsed too: it may be rescued and start twice.
    """
    run, child = stopped_at(site, "complete.before_commit", "all-but")
    until(lambda: is_so(site, run, "lease_expires_at < runclaim_now() - interval '1 second'"), "the lease to lapse")
    os.kill(child, signal.SIGCONT)

    nothing_lost_or_doubled(site, [run])
    assert [1] == [start.attempt for start in site.starts(run, "first")]
    assert 0 == happened(site, run, "phase.rescued", phase="first")


def stopped_at(site: Site, place: str, name: str, **do: str) -> tuple[Run, int]:
    """A run whose first phase stopped its process at `place`, which process that is; others are up to take over."""
    landed = site.folder / "landed"
    run = site.enqueue(name, **do)
    stalls = site.worker(concurrency=1, ready=False, env={"RUNCLAIM_FAILPOINTS": f"{place}=stop@{landed}"})
    until(landed.exists, f"somebody to pass {place}", so_far=site.story)
    child = until(lambda: stopped_child(stalls), "a stopped child")
    site.worker(ready=False)
    site.beat()
    return run, child


def suspend(site: Site, worker: Process) -> None:
    """SIGSTOP to all of a worker while none of its transactions is open: what it held locked would hide the stall."""

    def stopped_between_transactions() -> bool:
        worker.pause()
        if not in_transaction(site):
            return True
        worker.resume()
        return False

    until(stopped_between_transactions, "a moment between two transactions")


def in_transaction(site: Site) -> bool:
    if site.database.url.get_backend_name() == "sqlite":
        with sqlite3.connect(str(site.database.url.database), timeout=0, isolation_level=None) as file:
            try:
                file.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            file.execute("ROLLBACK")
        return False
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    asked = f"SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND {others}"
    return bool(site.database.ask(lambda conn: conn.execute(text(asked)).scalar_one()))
