"""The keeper of leases: it beats while a body runs, hears what is asked of its claim, and never beats for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from runclaim.database import Database
from runclaim.errors import Canceled, LedgerUnavailable
from runclaim.flows.client.changes import Cancel
from runclaim.flows.run.lease_keeper import Keeper
from runclaim.ledger.rescue import rescue
from tests.harness.until import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim import Run
    from runclaim.ledger.fence import Claim
    from tests.harness.bench import Bench

SHORT = timedelta(seconds=0.4)
LONG = timedelta(hours=1)


@pytest.fixture
def keeper(bench: Bench) -> Iterator[Keeper]:
    database = Database(bench.config.database_url, pool_size=1, patience=timedelta(seconds=10))
    made = Keeper(database)
    yield made
    made.close()
    database.close()


@pytest.fixture
def claim(bench: Bench) -> Claim:
    """A claim whose lease is nearly over, that nobody beats for."""
    flow = bench.flow()
    flow.phase(name="deliver", lease=SHORT)(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)
    (taken,) = bench.runner()._claim(flow.phases["deliver"], [(run.id, 0)])
    return taken


def lease_ends(bench: Bench) -> object:
    with bench.database.read() as conn:
        return conn.execute(text("SELECT lease_expires_at FROM runclaim_runs")).scalar_one()


def lapsed(bench: Bench) -> int:
    return len(bench.database.run(rescue))


def test_a_watched_claim_outlives_its_lease_and_a_forgotten_one_does_not(bench: Bench, keeper: Keeper, claim: Claim):
    keeper.watch(claim, lease=SHORT, max_duration=LONG)
    seen = {lease_ends(bench)}
    until(lambda: seen.add(lease_ends(bench)) or len(seen) > 8, "eight beats: two leases")

    assert keeper.trouble(claim) is None
    keeper.forget(claim)
    until(lambda: lapsed(bench), "the lapse of a claim that nobody beats for")


def test_a_claim_wakes_a_keeper_that_would_sleep_through_its_lease(
    bench: Bench, keeper: Keeper, claim: Claim, monkeypatch
):
    """
    INVARIANT: a lease is beaten for in time, whatever the keeper was waiting for before.

    Breaks if `watch` does not wake the thread for a beat that is due earlier than it looks again by itself.
    """
    monkeypatch.setattr("runclaim.flows.run.lease_keeper._FLUSH_SECONDS", LONG.total_seconds())
    keeper.count("duplicates_refused", "review")
    until(lambda: keeper._sleeps_until > time.monotonic() + 60, "a keeper that sleeps")
    before = lease_ends(bench)
    keeper.watch(claim, lease=SHORT, max_duration=LONG)
    until(lambda: lease_ends(bench) != before, "the first beat")

    assert keeper.trouble(claim) is None


def test_no_beat_passes_the_deadline(bench: Bench, keeper: Keeper, claim: Claim):
    """
    INVARIANT: a body that hangs with a healthy heartbeat does not keep its run for ever.

    Breaks if the heartbeat does not compare the deadline.
    """
    in_a_moment = "datetime('now')" if "sqlite" in bench.config.database_url else "now()"
    if in_a_moment == "now()":
        bench.execute("UPDATE runclaim_runs SET deadline_at = clock_timestamp() + interval '0.6 s'")
    else:
        bench.execute("UPDATE runclaim_runs SET deadline_at = lease_expires_at + 200000")
    keeper.watch(claim, lease=SHORT, max_duration=LONG)

    until(lambda: keeper.trouble(claim), "the loss of a claim past its deadline")
    until(lambda: lapsed(bench), "its rescue")


@pytest.mark.postgres
def test_a_row_that_somebody_holds_stops_no_other_beat_and_is_beaten_for_once_it_is_free(postgres_bench: Bench):
    """
    INVARIANT: a transaction of the application that stays open takes no claim away, least of all another run's.

    Breaks if the beat of a process waits for a locked row, or takes it for lost.
    """
    bench = postgres_bench
    flow = bench.flow()
    flow.phase(name="deliver", lease=SHORT)(lambda ctx: None)
    held, free = (flow.enqueue(repo="acme/app", number=number) for number in (1, 2))
    taken = [bench.runner()._claim(flow.phases["deliver"], [(run.id, 0)])[0] for run in (held, free)]
    database = Database(bench.config.database_url, pool_size=1, patience=timedelta(seconds=10))
    keeper = Keeper(database)
    with bench.database.begin() as conn:
        conn.execute(text("SELECT 1 FROM runclaim_runs WHERE id = :id FOR UPDATE"), {"id": held.id})
        for claim in taken:
            keeper.watch(claim, lease=SHORT, max_duration=LONG)
        seen = {lease_of(bench, free)}
        until(lambda: seen.add(lease_of(bench, free)) or len(seen) > 8, "eight beats for the run beside it")
        before = lease_of(bench, held)
    until(lambda: lease_of(bench, held) > before, "a beat for the run that is free again")
    troubles = [keeper.trouble(claim) for claim in taken]
    keeper.close()
    database.close()

    assert [None, None] == troubles


def lease_of(bench: Bench, run: Run) -> datetime:
    found = bench.execute("SELECT lease_expires_at FROM runclaim_runs WHERE id = :id", id=run.id).scalar_one()
    assert isinstance(found, datetime)
    return found


def test_the_keeper_hears_of_a_cancellation(bench: Bench, keeper: Keeper, claim: Claim):
    keeper.watch(claim, lease=SHORT, max_duration=LONG)
    bench.ledger.do(Cancel([claim.run_id], "ann"))

    assert type(until(lambda: keeper.trouble(claim), "the cancellation")) is Canceled


def test_the_keeper_hears_of_a_lost_claim_and_why(bench: Bench, keeper: Keeper, claim: Claim):
    bench.execute("UPDATE runclaim_runs SET owner = 'somebody else'")
    keeper.watch(claim, lease=SHORT, max_duration=LONG)

    assert "the run is running" == until(lambda: keeper.trouble(claim), "the loss").reason


def test_a_ledger_that_is_away_is_no_loss_and_beats_go_on_when_it_is_back(bench: Bench, claim: Claim):
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing", pool_size=1, patience=SHORT)
    keeper = Keeper(away)
    keeper.watch(claim, lease=LONG, max_duration=LONG)
    (watched,) = keeper._watched.values()
    watched.beat_at = 0
    with pytest.raises(LedgerUnavailable):
        keeper.run_once()

    assert keeper.trouble(claim) is None
    keeper._database = Database(bench.config.database_url, pool_size=1, patience=SHORT)
    before = lease_ends(bench)
    watched.beat_at = 0
    keeper.run_once()
    assert lease_ends(bench) != before
    keeper.close()
    keeper._database.close()


def test_an_overdue_body_is_told_of_once_it_is_overdue_and_again_after_its_grace(bench: Bench, claim: Claim):
    told: list[int] = []
    database = Database(bench.config.database_url, pool_size=1, patience=SHORT)
    keeper = Keeper(database, on_overdue=lambda _claim, times: told.append(times))
    keeper.watch(claim, lease=SHORT, max_duration=timedelta(milliseconds=50))

    until(lambda: told == [1], "the first word")
    (watched,) = keeper._watched.values()
    watched.deadline -= 30
    until(lambda: told == [1, 2], "the second word")
    keeper.close()
    database.close()


def test_a_body_that_ended_just_now_is_not_told_of_as_overdue(bench: Bench, claim: Claim):
    """Breaks if the keeper interrupts its process without looking whose body runs there by now."""
    told: list[int] = []
    keeper = Keeper(bench.database, on_overdue=lambda _claim, times: told.append(times))
    keeper.watch(claim, lease=LONG, max_duration=LONG)
    (watched,) = keeper._watched.values()
    keeper.forget(claim)
    keeper._report_overdue(watched)
    keeper.close()

    assert [] == told


def test_totals_are_written_once_however_many_threads_count(bench: Bench):
    def count() -> None:
        for _ in range(50):
            bench.keeper.count("duplicates_refused", "review")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {("duplicates_refused", "review"): 200} == bench.totals()
    assert {("duplicates_refused", "review"): 200} == bench.totals()


def test_a_forked_process_starts_a_keeper_of_its_own(laptop: Bench):
    """Breaks if a child believes in its parent's thread, counts its parent's totals again, or waits for its locks."""
    laptop.keeper.count("duplicates_refused", "review")
    laptop.keeper._wake.acquire()  # as some thread of the parent may have at that moment
    with warnings.catch_warnings(action="ignore"):  # newer Pythons warn of a fork beside threads: that is the point
        child = os.fork()
    if child == 0:
        laptop.keeper.count("duplicates_refused", "review")
        laptop.keeper.close()
        os._exit(0)
    laptop.keeper._wake.release()

    try:
        until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, "the end of the child")
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise
    assert {("duplicates_refused", "review"): 2} == laptop.totals()
