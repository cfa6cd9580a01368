"""Beat's look at who consumes what: a queue that nobody consumes is told, for its messages wait for ever."""

from __future__ import annotations

import logging

import pytest

from runclaim.beat.audience import tell
from tests.harness import Site, until


@pytest.mark.site(phases={"first": {"queue": "high"}, "second": {"queue": "gone"}})
def test_each_queue_that_no_worker_consumes_is_told_with_what_waits_there(
    redis_site: Site, caplog: pytest.LogCaptureFixture
):
    """
    INVARIANT: workers that all have queues of their own do not leave the upkeep to nobody without a word.

    Breaks if beat does not ask the workers, or takes no answer, as without remote control, for one.
    """
    stage = redis_site.stage
    with caplog.at_level(logging.WARNING, logger="runclaim.beat"):
        tell(stage.app, stage.runs._runtime)
        assert [] == caplog.records
        redis_site.worker(pool="threads", queues="high")
        answers = stage.app.control.inspect(timeout=1).active_queues
        until(lambda: answers() is not None, "an answer of the worker", so_far=redis_site.story)
        tell(stage.app, stage.runs._runtime)

    upkeep = ", ".join(f"runclaim.{name}" for name in ("rescue", "dispatch", "deliver", "purge", "forget", "tell"))
    assert [each.getMessage() for each in caplog.records] == [
        f"no worker consumes the queue {queue}, where {tasks} wait;"
        f" start a worker with -Q {queue}, or route them to another queue"
        for queue, tasks in (("celery", f"{upkeep}, steps.third"), ("gone", "steps.second"))
    ]
