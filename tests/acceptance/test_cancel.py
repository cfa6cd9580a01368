"""Cancellation and supersession reach a run where it is: in the queue, in its body, between two phases."""

from __future__ import annotations

import pytest

from runclaim import RunState
from tests.harness import Site, until

#: The heartbeat is far away: what a body hears, it hears by `ctx.check` asking the ledger.
FAR = {"lease": "10m", "rescue_every": "10m"}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.site(settings=FAR)
def test_a_running_run_stops_at_its_next_check(redis_site: Site, pool: str):
    run = redis_site.enqueue("x", second="check")
    waiting = redis_site.enqueue("waiting")
    waiting.cancel()
    redis_site.worker(pool=pool, concurrency=1)
    redis_site.started(run, "second")
    assert run.cancel(by="ann") is RunState.RUNNING
    redis_site.ended(run, state=RunState.CANCELED)

    assert [("x", "first")] == redis_site.rows()
    assert [RunState.CANCELED, []] == [waiting.state, redis_site.starts(waiting)]
    assert {"first": "complete", "second": "pending", "third": "pending"} == run.phases


@pytest.mark.site(settings=FAR)
def test_a_body_that_never_checks_completes_and_its_run_ends_there(redis_site: Site):
    run = redis_site.enqueue("x", second="gate")
    redis_site.worker(pool="threads", concurrency=1)
    redis_site.started(run, "second")
    run.cancel()
    redis_site.open("x", "second")
    redis_site.ended(run, state=RunState.CANCELED)

    assert [("x", "first"), ("x", "second")] == redis_site.rows()


@pytest.mark.site(settings={"lease": "1s"}, phases={"second": {"lease": 1.0}})
def test_the_heartbeat_tells_of_a_cancellation_too(redis_site: Site):
    run = redis_site.enqueue("x", second="check")
    redis_site.worker(pool="threads", concurrency=1)
    redis_site.started(run, "second")
    run.cancel()

    redis_site.ended(run, state=RunState.CANCELED)


@pytest.mark.parametrize("hears", ["check", "gate"])
@pytest.mark.site(settings=FAR, subjects=True)
def test_a_newer_run_of_a_subject_stops_the_running_one_and_takes_its_rows_back(postgres_site: Site, hears: str):
    """
    INVARIANT: of two runs of one subject, only the newer one goes on; nothing of the older one is written any more.

    Breaks if a completion does not compare the fence, or if a running run is not superseded.
    """
    older = postgres_site.enqueue("h1", about="pr-7", second=hears)
    worker = postgres_site.worker(pool="threads", concurrency=2)
    postgres_site.started(older, "second")
    newer = postgres_site.enqueue("h2", about="pr-7")
    postgres_site.ended(newer)
    if hears == "gate":
        postgres_site.open("h1", "second")
    until(lambda: "steps/second h1: claimlost" in worker.text, "the end of the older body", so_far=postgres_site.story)

    assert older.state is RunState.SUPERSEDED
    assert [("h1", "first")] == postgres_site.rows(older)
    assert [("h2", phase) for phase in ("first", "second", "third")] == postgres_site.rows(newer)
