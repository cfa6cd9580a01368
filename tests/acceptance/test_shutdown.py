"""Workers that are told to stop: their claims go back, their attempts with them, and the next worker goes on."""

from __future__ import annotations

import os
import signal

import pytest

from runclaim import RunState
from tests.harness import Process, Site, until

#: Nothing lapses in these tests: what another worker takes over was given back.
FAR = {"lease": "10m", "rescue_every": "10m"}
PHASES = ("first", "second", "third")


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
@pytest.mark.site(settings=FAR, phases={"second": {"max_attempts": 1}})
def test_a_worker_that_is_told_to_stop_gives_its_phase_back(redis_site: Site, pool: str):
    """
    INVARIANT: a deploy burns no attempt: a phase with one attempt survives it.

    Breaks if a release counts as an attempt, or if a pool child does not hear that its worker stops.
    """
    run = redis_site.enqueue("x", second="check")
    worker = redis_site.worker(pool=pool, concurrency=1)
    redis_site.started(run, "second")
    assert 0 == worker.stop()
    assert (RunState.QUEUED, 0) == (run.state, run.view.attempts)

    redis_site.open("x", "second")
    redis_site.worker(pool=pool, concurrency=1)
    redis_site.ended(run, upkeep=True)
    assert [1, 1] == [start.attempt for start in redis_site.starts(run, "second")]
    assert [("x", phase) for phase in PHASES] == redis_site.rows()


@pytest.mark.parametrize(
    "pool, how",
    [("prefork", "remote control"), ("prefork", "SIGHUP"), ("threads", "remote control"), ("solo", "SIGHUP")],
)
@pytest.mark.site(settings=FAR, phases={"second": {"max_attempts": 1}})
def test_every_way_to_stop_a_worker_ends_its_body_early(redis_site: Site, pool: str, how: str):
    """
    INVARIANT: `ctx.check` hears of a shutdown by Flower's button, by remote control and by SIGHUP as of SIGTERM.

    Breaks if one signal of Celery's is taken for all of them: neither way sends `worker_shutting_down`.
    """
    run = redis_site.enqueue("x", second="check")
    worker = redis_site.worker(pool=pool, concurrency=1)
    redis_site.started(run, "second")
    if how == "SIGHUP":
        # Celery starts itself anew in the same process; no body waits for that one.
        os.kill(worker.pid, signal.SIGHUP)
    else:
        redis_site.stage.app.control.shutdown()
    until(lambda: run.state is RunState.QUEUED, "the release", so_far=redis_site.story)

    assert (0, 1) == (run.view.attempts, len(redis_site.starts(run, "second")))


def works(site: Site, worker: Process) -> bool:
    return any(start.pid in worker.children() for start in site.starts(phase="second"))


@pytest.mark.site(settings=FAR, phases={name: {"max_attempts": 1} for name in PHASES})
def test_five_rolling_restarts_burn_no_attempt(postgres_site: Site):
    """
    INVARIANT: however often workers are replaced, runs go on and no attempt is spent.

    Breaks if a worker that is asked to stop leaves its claims to lapse, or if a release counts as an attempt.
    """
    runs = [postgres_site.enqueue(f"run{n}", second="check") for n in range(4)]
    worker = postgres_site.worker(concurrency=2)
    for _ in range(5):
        until(lambda its=worker: works(postgres_site, its), "a body in this worker", so_far=postgres_site.story)
        fresh = postgres_site.worker(concurrency=2, ready=False)
        worker.ask_to_stop()
        until(lambda its=worker: not its.is_up, "its end", within=60, so_far=postgres_site.story)
        fresh.said(" ready.", within=60)
        postgres_site.upkeep()
        worker = fresh
    for run in runs:
        postgres_site.open(run.view.key, "second")
    postgres_site.ended(*runs, upkeep=True)

    assert {1} == {start.attempt for start in postgres_site.starts()}
    assert len(postgres_site.starts(phase="second")) >= 5
    for run in runs:
        assert [(run.view.key, phase) for phase in PHASES] == postgres_site.rows(run)


@pytest.mark.parametrize("how", ["the whole process group", "a cold shutdown"])
@pytest.mark.site(settings=FAR, phases={"second": {"max_attempts": 1}})
def test_a_body_that_is_cut_off_by_the_shutdown_is_given_back(redis_site: Site, how: str):
    """As systemd and a second Ctrl-C do it: the pool child itself is ended in the middle of its body."""
    run = redis_site.enqueue("x", second="gate")
    worker = redis_site.worker(concurrency=1)
    redis_site.started(run, "second")
    if how == "a cold shutdown":
        os.kill(worker.pid, signal.SIGQUIT)
    else:
        os.killpg(worker.pid, signal.SIGTERM)
    until(lambda: run.state is RunState.QUEUED, "the release", so_far=redis_site.story)

    assert 0 == run.view.attempts
    redis_site.open("x", "second")
    redis_site.worker(concurrency=1)
    redis_site.ended(run, upkeep=True)


@pytest.mark.site(settings=FAR)
def test_the_phases_that_are_left_go_through_the_broker_when_the_worker_stops(redis_site: Site):
    """Whoever takes the message of the second phase while it still stops gives that back: it checks."""
    run = redis_site.enqueue("x", first="gate", second="check")
    worker = redis_site.worker(pool="threads", concurrency=1)
    redis_site.started(run, "first")
    worker.ask_to_stop()
    worker.said("Warm shutdown")
    redis_site.open("x", "first")
    assert 0 == worker.wait()
    assert "steps/first x: success, attempt 1" in worker.text
    assert (RunState.QUEUED, "second", 0) == (run.state, run.view.phase, run.view.attempts)

    redis_site.open("x", "second")
    redis_site.worker(pool="threads", concurrency=1)
    redis_site.ended(run, upkeep=True)
