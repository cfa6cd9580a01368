"""Celery's own settings cannot break the promise: late acks, redelivery long before the end, any prefetch."""

from __future__ import annotations

import pytest

from tests.harness import Site, until

PHASES = ["first", "second", "third"]
#: One second is far below a phase's length; the other two make kombu really look every second (its default is 100).
REDELIVERED = {"visibility_timeout": 1, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}


def told(*, late: bool, prefetch: int) -> dict[str, object]:
    # An annotation is the one way in which an application changes tasks that are not its own.
    return {
        "broker_transport_options": REDELIVERED,
        "worker_prefetch_multiplier": prefetch,
        "task_acks_late": late,
        "task_reject_on_worker_lost": late,
        "task_annotations": {"*": {"acks_late": late, "reject_on_worker_lost": late}},
    }


@pytest.mark.parametrize(
    "late, prefetch",
    [
        pytest.param(late, prefetch, marks=pytest.mark.site(conf=told(late=late, prefetch=prefetch)), id=name)
        for late, prefetch, name in [
            (True, 1, "late ack, prefetch 1"),
            (True, 64, "late ack, prefetch 64"),
            (False, 64, "early ack, prefetch 64"),
        ]
    ],
)
def test_a_phase_longer_than_the_visibility_timeout_completes_once(redis_site: Site, late: bool, prefetch: int):
    """
    INVARIANT: a message that Redis delivers again while its phase runs starts nothing.

    Breaks if the claim does not compare the fence, or if a claim that is held can be taken.
    """
    site = redis_site
    long = site.enqueue("long", second="gate")
    others = [site.enqueue(f"other{n}") for n in range(6)]
    workers = [site.worker(concurrency=1, pool="threads") for _ in range(2)]

    def received() -> int:
        return sum(worker.text.count("Task steps.first[") for worker in workers)

    site.started(long, "second")
    until(lambda: received() >= 7 + 3, "three messages delivered again", so_far=site.story)
    site.open("long", "second")
    site.ended(long, *others)

    for run in (long, *others):
        assert [(run.view.key, phase) for phase in PHASES] == site.rows(run)
        assert [1, 1, 1] == [len(site.starts(run, phase)) for phase in PHASES]


def test_an_early_ack_leaves_nothing_to_deliver_again(redis_site: Site):
    """A running phase is not in the broker: no visibility timeout can bring it back."""
    run = redis_site.enqueue("long", first="gate")
    redis_site.worker(pool="threads", concurrency=1)
    redis_site.started(run, "first")

    until(lambda: [redis_site.queued("celery"), redis_site.unacked()] == [0, 0], "an empty broker")
    redis_site.open("long", "first")
    redis_site.ended(run)


@pytest.mark.site(conf={"task_always_eager": True})
def test_an_eager_application_runs_its_phases_where_they_are_enqueued(redis_site: Site):
    run = redis_site.enqueue("a", second="skip")

    redis_site.ended(run)
    assert [("a", "first"), ("a", "third")] == redis_site.rows()


@pytest.mark.site(conf={"task_ignore_result": False, "result_backend": "cache+memory://", "task_compression": "gzip"})
def test_a_result_backend_and_compression_change_nothing(redis_site: Site):
    run = redis_site.enqueue("a", second="fail 1")
    redis_site.worker(pool="threads")

    redis_site.ended(run, upkeep=True)
    assert [("a", phase) for phase in PHASES] == redis_site.rows()
