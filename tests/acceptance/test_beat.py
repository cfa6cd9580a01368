"""Beat's part: rescue, dispatch and purge beside the application's own schedule, from any number of beats."""

from __future__ import annotations

import base64
import json
from collections import Counter
from datetime import timedelta

import pytest
import redis
from sqlalchemy import text

from runclaim import RunState
from tests.harness import Site, until

QUICK = {"rescue_every": "300ms", "dispatch_every": "300ms"}


def messages(site: Site, queue: str = "celery") -> list[tuple[dict, list]]:
    """Headers and arguments of what waits in a queue, the oldest first."""
    with redis.Redis.from_url(site.told["broker"]) as client:
        raw = [json.loads(each) for each in reversed(client.lrange(queue, 0, -1))]
    return [(each["headers"], json.loads(base64.b64decode(each["body"]))[0]) for each in raw]


def named(args: list) -> list[str]:
    """The ids of the runs that a message names: one and its fence, or pairs of them."""
    return [run_id for run_id, _ in args[0]] if isinstance(args[0], list) else args[:1]


def dispatches(site: Site) -> dict[str, int]:
    with site.database.read() as conn:
        return dict(conn.execute(text("SELECT key, dispatches FROM runclaim_runs")).all())


@pytest.mark.site(settings=QUICK | {"dispatch_after": "1h"}, conf={"task_routes": {"runclaim.*": {"queue": "upkeep"}}})
def test_two_beats_publish_each_run_once(redis_site: Site):
    """
    INVARIANT: any number of beats is harmless.

    Breaks if dispatch publishes without stamping the run first, or stamps what another beat has stamped.
    """
    site = redis_site
    delayed = [site.stage.steps.using(delay=timedelta(milliseconds=200)).enqueue(name=f"r{n}") for n in range(5)]
    assert 0 == site.queued("celery")
    upkeepers = [site.worker(pool="threads", queues="upkeep") for _ in range(2)]
    beats = [site.beat() for _ in range(2)]
    ticks = lambda: sum(worker.text.count("Task runclaim.dispatch") for worker in upkeepers)  # noqa: E731
    until(lambda: set(dispatches(site).values()) == {1} and ticks() >= 8, "several ticks", so_far=site.story)
    for beat in beats:
        beat.kill_all()

    assert Counter(run.id for run in delayed) == Counter(found for _, args in messages(site) for found in named(args))
    assert {1} == set(dispatches(site).values())


@pytest.mark.site(settings=QUICK)
def test_delays_live_in_the_ledger_and_no_message_has_an_eta(redis_site: Site):
    """
    INVARIANT: no message waits in a worker for its time; a broker that delivers again doubles nothing.

    Breaks if a delay, a backoff or `Retry(after=…)` is given to Celery as a countdown.
    """
    site = redis_site
    later = site.stage.steps.using(delay=timedelta(hours=1)).enqueue(name="later")
    soon = site.stage.steps.using(delay=timedelta(milliseconds=1)).enqueue(name="soon", do={"second": "retry 3600"})
    until(lambda: site.upkeep() or site.queued("celery"), "the dispatch of what is due")

    ((headers, args),) = messages(site)
    assert (headers["eta"], headers["expires"], args) == (None, None, [soon.id, 0])
    worker = site.worker(pool="threads")
    until(lambda: "steps/second soon: retry" in worker.text, "the retry", so_far=site.story)
    site.upkeep()
    assert [0, 0] == [site.queued("celery"), site.unacked()]
    assert [RunState.QUEUED, RunState.QUEUED] == [later.state, soon.state]


OWN_SCHEDULE = {"hello": {"task": "own.hello", "schedule": 0.3}}


@pytest.mark.site(settings=QUICK, conf={"beat_schedule": OWN_SCHEDULE}, phases={"first": {"lease": 1.0}})
def test_beat_dispatches_rescues_and_leaves_the_applications_schedule_alone(redis_site: Site):
    site = redis_site
    delayed = site.stage.steps.using(delay=timedelta(milliseconds=500)).enqueue(name="delayed")
    failing = site.enqueue("failing", second="fail 2")
    doomed = site.worker(pool="solo")
    stalled = site.enqueue("stalled", first="gate")
    site.started(stalled, "first")
    doomed.kill_all()
    site.open("stalled", "first")
    worker, beat = site.worker(pool="threads"), site.beat()
    site.ended(delayed, failing, stalled)

    assert [1, 2] == [start.attempt for start in site.starts(stalled, "first")]
    until(lambda: worker.text.count("Task own.hello") >= 2, "the application's own entry", so_far=site.story)
    assert "Sending due task hello" in beat.text
    assert "Sending due task runclaim.rescue" in beat.text


@pytest.mark.site(settings={"rescue_every": "300ms", "dispatch_every": "300ms", "dispatch_after": "1h"})
def test_upkeep_that_waited_behind_a_backlog_is_done_all_the_same(redis_site: Site):
    """
    INVARIANT: a backlog longer than beat's interval does not stop rescue and dispatch.

    Breaks if beat's messages expire within their interval: in a full queue each would be too old when it is taken.
    """
    site = redis_site
    run = site.stage.steps.using(delay=timedelta(milliseconds=1)).enqueue(name="x")
    beat = site.beat()
    until(lambda: beat.text.count("Sending due task runclaim.dispatch") >= 5, "five intervals")
    beat.kill_all()
    site.worker(pool="threads")
    site.ended(run)


@pytest.mark.site(settings=QUICK | {"purge_every": "300ms", "keep_succeeded": "1s"})
def test_beat_purges_what_is_old_and_remembers_its_key(redis_site: Site):
    run = redis_site.enqueue("x")
    redis_site.worker(pool="threads")
    redis_site.ended(run)
    redis_site.beat()
    until(lambda: not dispatches(redis_site), "the purge", so_far=redis_site.story)

    again = redis_site.enqueue("x")
    assert (again.created, again.id) == (False, run.id)
