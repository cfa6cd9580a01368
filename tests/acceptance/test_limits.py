"""Queues and limits of Celery: which phases follow each other in one delivery, and what a limit does to a claim."""

from __future__ import annotations

import pytest

from runclaim import RunState
from tests.harness import Process, Site, until

#: No rescue can help here: what comes back before the lease lapses was given back.
NO_RESCUE = {"lease": "10m", "rescue_every": "10m"}


def deliveries(worker: Process) -> list[str]:
    """The phases whose messages came to the worker, in order."""
    lines = worker.text.splitlines()
    return [line.split("Task steps.")[1].split("[")[0] for line in lines if "] received" in line]


@pytest.mark.site(names=["a", "b", "c", "d"], phases={"c": {"queue": "other"}})
def test_a_phase_with_a_queue_of_its_own_goes_through_the_broker_and_the_others_follow_inline(redis_site: Site):
    run = redis_site.enqueue("x")
    here = redis_site.worker(pool="threads", queues="celery")
    until(lambda: redis_site.queued("other") == 1, "the message in the other queue", so_far=redis_site.story)
    there = redis_site.worker(pool="threads", queues="other")
    redis_site.ended(run)

    assert (["a", "d"], ["c"]) == (deliveries(here), deliveries(there))
    assert [("x", phase) for phase in "abcd"] == redis_site.rows()


@pytest.mark.site(
    names=["a", "b", "c", "d"],
    conf={"task_routes": {"steps.b": {"queue": "other"}, "steps.c": {"queue": "other"}}},
)
def test_the_applications_routes_decide_about_phases_too(redis_site: Site):
    run = redis_site.enqueue("x")
    worker = redis_site.worker(pool="threads", queues="celery,other")
    redis_site.ended(run)

    assert ["a", "b", "d"] == deliveries(worker)


@pytest.mark.site(names=["a", "b", "c"], conf={"task_annotations": {"steps.b": {"time_limit": 60}}})
def test_a_phase_with_a_time_limit_goes_through_the_broker(redis_site: Site):
    run = redis_site.enqueue("x")
    worker = redis_site.worker(pool="prefork", concurrency=1)
    redis_site.ended(run)

    assert ["a", "b", "c"] == deliveries(worker)


@pytest.mark.site(
    settings=NO_RESCUE,
    conf={"task_annotations": {"steps.second": {"time_limit": 1}}},
    phases={"second": {"max_attempts": 3}},
)
def test_a_hard_time_limit_kills_the_child_and_the_claim_is_given_back_at_once(postgres_site: Site):
    """
    INVARIANT: a run does not wait for a lease whose holder is known to be dead.

    Breaks if the worker's main process does not give back the claims of a child that it lost.
    """
    run = postgres_site.enqueue("x", second="deaf 1")
    other = postgres_site.enqueue("y")
    worker = postgres_site.worker(pool="prefork", concurrency=2)
    postgres_site.started(run, "second")
    postgres_site.ended(run, other, upkeep=True)

    assert "Hard time limit" in worker.text
    assert [1, 2] == [start.attempt for start in postgres_site.starts(run, "second")]
    assert [("x", phase) for phase in ("first", "second", "third")] == postgres_site.rows(run)


@pytest.mark.site(settings=NO_RESCUE, conf={"task_annotations": {"steps.second": {"soft_time_limit": 1}}})
def test_a_soft_time_limit_is_an_error_of_the_attempt(redis_site: Site):
    run = redis_site.enqueue("x", second="hang 1")
    redis_site.worker(pool="prefork", concurrency=1)
    redis_site.ended(run, upkeep=True)

    assert [1, 2] == [start.attempt for start in redis_site.starts(run, "second")]
    assert "SoftTimeLimitExceeded" in redis_site.errors(run)


@pytest.mark.site(settings=NO_RESCUE, phases={"second": {"max_duration": 1.0}})
def test_a_body_that_outlives_its_max_duration_is_interrupted(redis_site: Site):
    """
    INVARIANT: a body that hangs with a healthy heartbeat holds neither its run nor its slot for ever.

    Breaks if the keeper does not tell of overdue bodies, or beats past the deadline.
    """
    run = redis_site.enqueue("x", second="hang 1")
    worker = redis_site.worker(pool="prefork", concurrency=1)
    redis_site.ended(run, upkeep=True)

    assert "is past its max_duration; interrupting" in worker.text
    assert [1, 2] == [start.attempt for start in redis_site.starts(run, "second")]


@pytest.mark.site(settings=NO_RESCUE, phases={"second": {"max_duration": 1.0}})
def test_a_thread_that_outlives_its_max_duration_keeps_its_slot_and_not_its_run(redis_site: Site):
    """Nobody can end a thread: its worker says so, lives on, and the run goes on in another slot."""
    run = redis_site.enqueue("x", second="hang 1")
    worker = redis_site.worker(pool="threads", concurrency=2)
    redis_site.ended(run, upkeep=True)

    worker.said("is past its max_duration and still holds its slot")
    assert "interrupting" not in worker.text
    assert [1, 2] == [start.attempt for start in redis_site.starts(run, "second")]
    assert [("x", phase) for phase in ("first", "second", "third")] == redis_site.rows()


@pytest.mark.site(settings=NO_RESCUE, phases={"second": {"max_duration": 1.0, "max_attempts": 2}})
def test_a_worker_that_runs_its_bodies_itself_is_not_ended_for_one_of_them(redis_site: Site):
    """
    INVARIANT: only a child of a pool is ever sent a signal.

    Breaks if a process counts as a child because Celery tells it that bodies run here: the solo pool is told so too.
    """
    late = redis_site.enqueue("late", second="gate")
    worker = redis_site.worker(pool="solo")
    worker.said("is past its max_duration and still holds its slot", within=60)
    redis_site.open("late", "second")
    redis_site.ended(late, upkeep=True)

    assert worker.is_up
    assert "interrupting" not in worker.text


@pytest.mark.site(settings=NO_RESCUE, phases={"first": {"max_attempts": 2}})
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_body_that_ends_its_process_ends_its_run(redis_site: Site, pool: str):
    run = redis_site.enqueue("x", first="exit 9")
    others = [redis_site.enqueue(f"other{n}") for n in range(3)]
    redis_site.worker(pool=pool, concurrency=2)
    redis_site.ended(run, state=RunState.FAILED, upkeep=True)
    redis_site.ended(*others, upkeep=True)

    assert [1, 2] == [start.attempt for start in redis_site.starts(run, "first")]


@pytest.mark.site(settings=NO_RESCUE, phases={"first": {"max_attempts": 9, "max_losses": 2}})
def test_a_body_that_kills_its_process_each_time_ends_its_run(redis_site: Site):
    run = redis_site.enqueue("x", first="kill")
    redis_site.worker(pool="prefork", concurrency=2)
    redis_site.ended(run, state=RunState.FAILED, upkeep=True)

    assert [1, 2] == [start.attempt for start in redis_site.starts(run, "first")]
    assert "WorkerLost" in redis_site.errors(run)


@pytest.mark.site(phases={"first": {"queue": "quick"}, "second": {"queue": "slow"}}, conf={"task_default_priority": 6})
def test_a_message_goes_to_the_phases_queue_with_its_runs_priority(redis_site: Site):
    """
    Redis keeps a list for each step of priority; Celery makes its name of the queue's and the step's.

    Breaks if 0, which is first on Redis and last on RabbitMQ, counts as none given.
    """
    site = redis_site
    using = site.stage.steps.using
    runs = [site.enqueue("ordinary"), *(using(priority=each).enqueue(name=f"at {each}") for each in (3, 0))]

    def steps(queue: str) -> list[int]:
        return [site.queued(f"{queue}{step}") for step in ("\x06\x166", "\x06\x163", "")]

    assert [1, 1, 1] == steps("quick")
    assert 0 == site.queued("celery")
    site.worker(pool="threads", queues="quick")
    until(lambda: [run.view.phase for run in runs] == ["second"] * 3, "the first phases", so_far=site.story)
    until(lambda: steps("slow") == [1, 1, 1], "the second phases' messages")
