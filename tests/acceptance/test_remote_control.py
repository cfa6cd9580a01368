"""What Celery's remote control and the messages of others do to runs, with one worker for all of it."""

from __future__ import annotations

import sys

import pytest
import redis

from runclaim import RunState
from tests.harness import Site, until

#: Nothing lapses in these tests: what comes back was given back.
FAR = {"lease": "10m", "rescue_every": "10m"}


@pytest.mark.site(settings=FAR)
def test_a_task_that_is_revoked_and_terminated_gives_its_run_back_at_once(redis_site: Site):
    """
    INVARIANT: a run does not wait for a lease whose holder is known to be dead, whoever ended it.

    Breaks if the worker's main process does not take Celery's Terminated for the death of a child.
    """
    held = redis_site.enqueue("held", first="gate")
    redis_site.worker(concurrency=1)
    redis_site.started(held, "first")
    control = redis_site.stage.app.control
    (active,) = (each for tasks in control.inspect(timeout=10).active().values() for each in tasks)
    control.revoke(active["id"], terminate=True, signal="SIGKILL")
    until(lambda: held.view.attempts == 1 and held.state is RunState.QUEUED, "its return", so_far=redis_site.story)
    redis_site.open("held", "first")
    redis_site.ended(held, upkeep=True)

    assert [1, 2] == [each.attempt for each in redis_site.starts(held, "first")]


@pytest.mark.site(settings=FAR)
def test_a_time_limit_in_a_message_ends_no_body(redis_site: Site):
    """
    INVARIANT: who can write to the broker cannot have bodies killed until a run has spent its attempts.

    Breaks if our tasks take a time limit from the message's headers instead of from the application.
    """
    run = redis_site.enqueue("x", first="take 4")
    with redis.Redis.from_url(redis_site.told["broker"]) as client:
        client.delete("celery")
    redis_site.stage.app.tasks["steps.first"].apply_async(args=(run.id, 0), time_limit=1, soft_time_limit=1)
    worker = redis_site.worker(concurrency=1)
    redis_site.ended(run)

    assert 1 == len(redis_site.starts(run, "first"))
    assert "time limit" not in worker.text.lower()


EMBEDDED = """
import logging, os, threading
from celery.contrib.testing.worker import start_worker
from tests.harness.app import stage

run = stage.steps.enqueue(name="x", do={"second": "hang"})
with start_worker(stage.app, pool="solo", perform_ping_check=False, shutdown_timeout=90):
    heard = threading.Event()

    class Ear(logging.Handler):
        def emit(self, record):
            if "holds its slot" in record.getMessage():
                heard.set()

    logging.getLogger("runclaim.worker").addHandler(Ear())
    print("heard", heard.wait(60), flush=True)
    # The body is asleep, and its thread would hold up the end.
    os._exit(0)
"""


@pytest.mark.site(settings=FAR, phases={"second": {"max_duration": 1.0}})
def test_a_process_that_embeds_a_worker_is_not_ended_for_a_body(redis_site: Site):
    """As Celery's own fixtures for tests do it: a signal would end the whole test run without a word."""
    embedded = redis_site.start("embedded", [sys.executable, "-c", EMBEDDED])

    assert 0 == embedded.wait(90), embedded.tail
    assert "heard True" in embedded.text
