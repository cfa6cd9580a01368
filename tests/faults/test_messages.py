"""Every message five times, in any order, some of them long after their runs have ended."""

from __future__ import annotations

import json
import os
import random
import sys
import uuid
from typing import TYPE_CHECKING

import pytest
import redis

from tests.faults.middleman import Middleman
from tests.faults.oracle import nothing_lost_or_doubled
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.servers import Server
    from tests.harness import Site

COPIES = 5
RUNS = 20


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "grouped"])
@pytest.mark.parametrize("url", ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.postgres)])
def test_every_message_five_times_and_shuffled_completes_each_phase_once(
    make_site: Callable[..., Site], request: pytest.FixtureRequest, valkey_server: Server, url: str, grouped: bool
):
    """
    The second phase has a queue of its own, so each run is named twice: by messages of its own, or by shared ones.

    How many messages name a run that is named by several is chance; alone they are counted.
    """
    site = make_site(
        request.getfixturevalue(url),
        settings={"lease": "20s", "dispatch_after": "20s", "grouped": grouped},
        conf={"task_default_queue": "inbox"},
        phases={"second": {"queue": "inbox2"}, "third": {"queue": "inbox2"}},
    )
    seed = int(os.environ.get("RUNCLAIM_TEST_SEED") or random.randrange(1 << 32))
    sys.stdout.write(f"RUNCLAIM_TEST_SEED={seed}\n")
    with Middleman(
        valkey_server.url, sources=["inbox", "inbox2"], target="outbox", copies=COPIES, seed=seed
    ) as middleman:
        site.worker(queues="outbox", concurrency=2, ready=False)
        site.worker(queues="outbox", pool="threads", concurrency=4, ready=False)
        if grouped:
            runs = site.stage.steps.enqueue_many([{"name": f"run{number}"} for number in range(RUNS)])
        else:
            runs = [site.enqueue(f"run{number}") for number in range(RUNS)]
        nothing_lost_or_doubled(site, runs)
        late = middleman.deliver_late()
        refused = lambda: site.counter("duplicates_refused")  # noqa: E731 - said once, asked often
        until(lambda: refused() >= middleman.taken * (COPIES - 1), "the refusals to be counted", so_far=refused)

    nothing_lost_or_doubled(site, runs)
    assert middleman.taken == late
    assert middleman.delivered == COPIES * middleman.taken
    if grouped:
        assert refused() >= 2 * RUNS * (COPIES - 1)
    else:
        assert 2 * RUNS == middleman.taken
        assert refused() == middleman.taken * (COPIES - 1)
    assert 3 * RUNS == len(site.starts()), "no duplicate started a body"


def test_messages_that_name_nothing_are_dropped_and_hold_up_nobody(site: Site, valkey_server: Server):
    """A run that never was, a fence of tomorrow, arguments that are none: refused, and the next run goes through."""
    worker = site.worker(concurrency=1)
    first = site.enqueue("first")
    nothing_lost_or_doubled(site, [first])
    for arguments in ([str(uuid.uuid4()), 0], [first.id, 99], ["no id", 0], [first.id, "x"], [None, None], [], [1] * 9):
        site.stage.app.send_task("steps.first", args=arguments, ignore_result=True)
    site.stage.app.send_task("steps.first", kwargs={"run_id": first.id, "fence": 0}, ignore_result=True)
    with redis.Redis.from_url(valkey_server.url) as client:
        client.lpush("celery", json.dumps({"body": "bm8ganNvbg==", "headers": {}, "properties": {}}))
    # Celery connects anew at what is no task; what it had taken from Redis at that moment, dispatch publishes again.
    site.beat()
    second = site.enqueue("second")

    nothing_lost_or_doubled(site, [first, second])
    assert worker.is_up
    assert worker.text.count("Task steps.first[") >= 10, "every message but the one that is no task was received"
    assert 6 == len(site.starts())
