"""Every message five times, in any order, some of them long after their runs have ended."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from tests.faults.middleman import Middleman
from tests.faults.oracle import nothing_lost_or_doubled
from tests.harness import until
from tests.harness.bodies import gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.servers import Server
    from tests.harness import Site

COPIES = 5
RUNS = 20
#: Taken from a queue of Redis, it ends Celery's connection: it is JSON, and no message.
NO_MESSAGE = json.dumps({"body": "bm8ganNvbg==", "headers": {}, "properties": {}})


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
    assert COPIES * middleman.taken == middleman.delivered
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
        client.lpush("celery", NO_MESSAGE)
    # Celery connects anew at what is no task; what it had taken from Redis at that moment, dispatch publishes again.
    site.beat()
    second = site.enqueue("second")

    nothing_lost_or_doubled(site, [first, second])
    assert worker.is_up
    assert worker.text.count("Task steps.first[") >= 10, "every message but the one that is no task was received"
    assert 6 == len(site.starts())


def test_a_worker_goes_on_whose_connection_ends_while_a_result_is_read(site: Site, valkey_server: Server):
    """
    INVARIANT: a worker that loses its broker takes messages again as soon as the broker is back.

    Breaks if Celery's loop is reset over a result that it has read in part: the worker then waits for that pool
    process for ever, in silence. Celery sends what is above 16 kB in two parts, as it does with most tracebacks.
    """
    worker = site.worker(concurrency=1)
    site.stage.app.send_task("own.large", ignore_result=True)
    until((site.folder / "large").exists, "the task to wait at its gate", so_far=site.story)
    (child,) = worker.children()
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        # Both are there when the worker looks again, the result first.
        gate(site.folder, "own", "large").touch()
        until(lambda: _writes(child), "the pool process to fill its pipe")
        with redis.Redis.from_url(valkey_server.url) as client:
            client.lpush("celery", NO_MESSAGE)
    finally:
        os.kill(worker.pid, signal.SIGCONT)
    worker.said("Connection to broker lost")
    run = site.enqueue("afterwards")

    site.ended(run, upkeep=True)
    assert [child] == worker.children()


def _writes(child: int) -> bool:
    """Whether the process hangs in a write of its result."""
    return "pipe_write" in Path(f"/proc/{child}/wchan").read_text()
