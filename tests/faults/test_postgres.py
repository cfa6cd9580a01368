"""PostgreSQL restarts, throws everybody out or has no room: bodies in flight still complete once."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.faults.oracle import is_so, nothing_lost_or_doubled, stopped_child
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim import Run
    from runclaim.servers import Server
    from tests.harness import Site

#: Every client of the ledger but those that look on.
OURS = "pid <> pg_backend_pid() AND application_name = 'runclaim' AND datname = current_database()"


@pytest.fixture
def private_site(make_site: Callable[..., Site], private_postgres: Server) -> Site:
    """A site whose PostgreSQL is its own and flushes each commit. The lease outlasts a crash and its recovery."""
    return make_site(private_postgres.url, settings={"lease": "16s"})


@pytest.mark.parametrize("told", ["gate", "check"])
def test_a_crash_of_postgres_under_running_bodies_costs_no_attempt(
    private_site: Site, private_postgres: Server, told: str
):
    """Neither does it disturb a body that asks `ctx.check()` all the while: what is not known is not lost."""
    site = private_site
    site.worker(ready=False)
    site.beat()
    runs = [site.enqueue(f"run{number}", second=told) for number in range(6)]
    for run in runs[:2]:
        site.started(run, "second")
    private_postgres.restart(immediate=True)
    for run in runs[:2]:
        beats_again = "lease_expires_at > pg_postmaster_start_time() + interval '16 seconds'"
        until(lambda: is_so(site, run, beats_again), "a heartbeat after the crash", so_far=site.story)  # noqa: B023
    for number in range(6):
        site.open(f"run{number}", "second")

    nothing_lost_or_doubled(site, runs)
    assert "not properly shut down" in private_postgres.log.read_text()
    assert [1] * 18 == [start.attempt for start in site.starts()]


def test_a_completion_waits_for_a_postgres_that_comes_back(private_site: Site, private_postgres: Server):
    site = private_site
    landed = site.folder / "landed"
    worker = site.worker(concurrency=1, ready=False, env={"RUNCLAIM_FAILPOINTS": f"body.after=stop@{landed}"})
    run = site.enqueue("waits")
    until(landed.exists, "the body to end")
    child = until(lambda: stopped_child(worker), "its process to stop")
    private_postgres.stop(immediate=True)
    os.kill(child, signal.SIGCONT)
    worker.said("heartbeat failed")
    private_postgres.start()

    nothing_lost_or_doubled(site, [run])
    assert [1, 1, 1] == [start.attempt for start in site.starts(run)]


def test_a_worker_that_starts_before_its_postgres_waits_for_it(private_site: Site, private_postgres: Server):
    site = private_site
    run = site.enqueue("early")
    private_postgres.stop()
    worker = site.worker()
    worker.said("the run waits in the ledger", within=60)
    private_postgres.start()
    site.beat()

    nothing_lost_or_doubled(site, [run])
    assert worker.is_up


def test_a_postgres_that_stalls_beyond_every_lease_doubles_nothing(
    make_site: Callable[..., Site], private_postgres: Server
):
    """Everything hangs and nothing fails; then all leases have lapsed at once, and every worker is still there."""
    site = make_site(private_postgres.url)
    site.worker(concurrency=4, ready=False)
    site.worker(pool="threads", concurrency=4, ready=False)
    site.beat()
    runs = [site.enqueue(f"run{number}", second="gate") for number in range(8)]
    for run in runs:
        site.started(run, "second")
    private_postgres.pause()
    stalled_at = time.monotonic()
    for number in range(8):
        site.open(f"run{number}", "second")
    until(lambda: time.monotonic() - stalled_at > 4, "twice the lease")
    private_postgres.resume()

    nothing_lost_or_doubled(site, runs)


def test_backends_that_are_terminated_all_the_time_lose_and_double_nothing(site: Site, postgres_url: str):
    site.worker(ready=False)
    site.beat()
    terminated, in_transaction, names = 0, 0, itertools.count()
    with ThreadPoolExecutor(2) as clicks, psycopg.connect(plain(postgres_url), autocommit=True) as admin:
        asked: list[Future[Run]] = []
        ends = time.monotonic() + 60
        while (terminated < 80 or in_transaction < 5) and time.monotonic() < ends:
            asked += [clicks.submit(site.enqueue, f"run{next(names)}") for _ in range(3)]
            told = admin.execute(f"SELECT state, pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
            found = [state for state, was_there in told if was_there]
            terminated += len(found)
            in_transaction += sum(state != "idle" for state in found)
            asked[-1].result()
        runs = [each.result() for each in asked]

    nothing_lost_or_doubled(site, runs)
    assert (True, True) == (terminated >= 80, in_transaction >= 5), (terminated, in_transaction)
    assert all(run.created for run in runs), "an enqueue whose connection died knows its run again"
    assert len({run.id for run in runs}) == len(runs)


def test_a_full_postgres_is_waited_for(private_site: Site, private_postgres: Server):
    """Every connection of ours is thrown out, and others take its place; the bodies end meanwhile."""
    site = private_site
    site.worker(ready=False)
    runs = [site.enqueue(f"run{number}", first="gate") for number in range(2)]
    for run in runs:
        site.started(run, "first")
    with every_connection(private_postgres.url) as taken:
        refused = refusals(private_postgres)
        site.open("run0", "first")
        site.open("run1", "first")
        # Two completions, each tried several times.
        until(lambda: refusals(private_postgres) > refused + 6, "completions to be refused")
        assert taken > 50

    nothing_lost_or_doubled(site, runs)
    assert [1] * 6 == [start.attempt for start in site.starts()]


@contextlib.contextmanager
def every_connection(url: str) -> Iterator[int]:
    """Hold every connection that the server has to give, ours among them; says how many."""
    with contextlib.ExitStack() as held:
        admin = held.enter_context(psycopg.connect(plain(url), autocommit=True))
        taken = 0
        for _ in range(3):
            admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    held.enter_context(psycopg.connect(plain(url)))
                    taken += 1
        yield taken


def refusals(server: Server) -> int:
    return server.log.read_text().count("too many clients already")


def plain(url: str) -> str:
    """The URL as psycopg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
