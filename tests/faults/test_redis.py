"""The broker forgets, dies or hangs: messages are hints, so nothing that was acknowledged is lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import redis

from tests.faults.oracle import dispatched, nothing_lost_or_doubled
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim import Run
    from runclaim.servers import Server
    from tests.harness import Process, Site

#: Runs that a broker holds while both slots of the worker wait at a gate.
WAITING = 12


def test_flushall_loses_no_run(either_site: Site, valkey_server: Server):
    site = either_site
    runs, _worker = busy_with_a_backlog(site)
    with redis.Redis.from_url(valkey_server.url) as client:
        messages, _done = client.pipeline().lrange("celery", 0, -1).flushall().execute()
    held = sum(b'"task": "steps.first"' in message for message in messages)
    open_gates(site)

    nothing_lost_or_doubled(site, runs)
    assert held >= WAITING - 2  # all but what the worker has prefetched
    assert dispatched(site) >= held, "the ledger published again what was flushed"


def test_flushall_does_not_close_the_way_to_a_queue_of_its_own(
    make_site: Callable[..., Site], postgres_url: str, valkey_server: Server
):
    """The flush takes the broker's bindings too, and nobody reconnects: what is published next has to arrive."""
    site = make_site(postgres_url, phases={"second": {"queue": "apart"}})
    site.worker(queues="celery,apart", ready=False)
    site.beat()
    before = site.enqueue("before")
    gated = site.enqueue("gated", first="gate")
    nothing_lost_or_doubled(site, [before])
    site.started(gated, "first")
    with redis.Redis.from_url(valkey_server.url) as client:
        client.flushall()
    site.open("gated", "first")
    after = site.enqueue("after")

    nothing_lost_or_doubled(site, [before, gated, after])


def test_a_redis_killed_without_persistence_loses_no_run(site: Site, valkey_server: Server):
    runs, worker = busy_with_a_backlog(site)
    valkey_server.kill()
    during = site.enqueue("while-it-is-down")
    valkey_server.start()
    worker.said("Connection to broker lost")
    open_gates(site)

    nothing_lost_or_doubled(site, [*runs, during])
    assert dispatched(site) >= WAITING - 2


@pytest.mark.parametrize("stopped_for", [7, pytest.param(30, marks=pytest.mark.slow)])
def test_a_stopped_redis_holds_up_no_enqueue(site: Site, valkey_server: Server, stopped_for: int):
    """Longer than all our time-outs: of connecting and writing (2 s), and of leaving the broker alone (5 s)."""
    runs, _worker = busy_with_a_backlog(site)
    valkey_server.pause()
    stopped_at, answers, noticed = time.monotonic(), [], False
    while time.monotonic() - stopped_at < stopped_for:
        began = time.monotonic()
        runs.append(site.enqueue(f"during{len(runs)}"))
        answers.append(time.monotonic() - began)
        until(lambda: time.monotonic() - began > 0.5, "the next click")  # noqa: B023 - called at once
        noticed = noticed or site.stage.runs.ledger.publisher.is_left_alone
    open_gates(site)
    valkey_server.resume()

    nothing_lost_or_doubled(site, runs)
    assert max(answers) < 3, answers
    # By the caller who rings, or by the thread that rings for those who come right after one.
    assert noticed, f"the fault did not land: {answers}"


def test_a_phase_that_completes_while_redis_is_stopped_is_published_later(make_site, postgres_url, valkey_server):
    """The next phase has a queue of its own, so its message has to go through the broker that does not answer."""
    site = make_site(postgres_url, phases={"third": {"queue": "apart"}})
    site.worker(queues="celery,apart", concurrency=1, ready=False)
    site.beat()
    run = site.enqueue("hop", second="gate")
    site.started(run, "second")
    valkey_server.pause()
    site.open("hop", "second")
    until(lambda: ("hop", "second") in site.rows(), "the second phase to complete")
    began = time.monotonic()
    until(lambda: "the broker does not answer" in site.processes[0].text, "the worker to notice")
    noticed = time.monotonic() - began
    valkey_server.resume()

    nothing_lost_or_doubled(site, [run])
    assert noticed < 10
    assert dispatched(site) >= 1


def busy_with_a_backlog(site: Site) -> tuple[list[Run], Process]:
    """Two runs whose bodies wait at their gates, and more behind them in the broker; a beat is up."""
    # Each run has a message of its own: what a worker has prefetched is then a run or two.
    site.told["settings"] |= {"grouped": False}
    worker = site.worker(concurrency=2, options=["--prefetch-multiplier", "1"])
    site.beat()
    runs = [site.enqueue(f"gated{number}", first="gate") for number in range(2)]
    for run in runs:
        site.started(run, "first")
    runs += [site.enqueue(f"behind{number}") for number in range(WAITING)]
    # What came within milliseconds of each other is published by a thread.
    site.stage.runs.ledger.publisher.flush()
    return runs, worker


def open_gates(site: Site) -> None:
    for number in range(2):
        site.open(f"gated{number}", "first")
