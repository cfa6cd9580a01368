"""Actions under faults: what a phase has planned arrives, once for each key, and the other side counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from tests.faults.oracle import SETTINGS, nothing_lost_or_doubled
from tests.harness import Site, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim import Run

QUICK = SETTINGS | {"deliver_every": "500ms"}
#: Every place that an action passes in a worker.
PLACES = ["action.after_claim", "action.before_send", "action.after_send"]


def posted(site: Site, runs: list[Run], *, many: int) -> None:
    """Wait until every action has ended, and hold what arrived against what was planned."""
    ended = lambda: all(each.ended_at for run in runs for each in run.actions)  # noqa: E731 - said once, read once
    until(ended, "the end of every action", within=60, so_far=site.story)
    actions = [each for run in runs for each in run.actions]

    assert len(actions) == many * len(runs), site.story()
    assert {"posted"} == {each.state for each in actions}, site.story()
    assert sorted(each.idempotency_key for each in actions) == sorted(site.arrived()), site.story()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("victim", ["kill", "killparent"])
def test_a_worker_killed_where_an_action_passes_posts_it_once(either_site: Site, place: str, victim: str):
    """
    INVARIANT: a planned action arrives, and not twice where the other side can be asked.

    Breaks if an action is posted in the ledger before it is sent, or sent again without a lookup.
    """
    site = either_site
    run = site.enqueue("one", first="plan 2", third="plan 1")
    landed = site.folder / "landed"
    worker = site.worker(ready=False, env={"RUNCLAIM_FAILPOINTS": f"{place}={victim}@{landed}"})
    site.beat()
    until(landed.exists, f"somebody to pass {place}", so_far=site.story)
    if victim == "killparent":
        worker.wait()
        site.worker(ready=False)

    nothing_lost_or_doubled(site, [run])
    posted(site, [run], many=3)
    if victim == "kill":  # with their parent die the senders of the others too, or get a little further
        assert 4 == sum(each.attempts for each in run.actions)


def test_a_flushed_broker_loses_no_action(make_site: Callable[..., Site], postgres_url: str):
    site = make_site(postgres_url, settings=QUICK, conf={"task_routes": {"runclaim.deliver": {"queue": "actions"}}})
    run = site.enqueue("one", first="plan 3")
    worker = site.worker()
    site.ended(run)
    with redis.Redis.from_url(site.told["broker"]) as client:
        assert 3 == client.llen("actions")
        client.flushall()
    worker.stop()
    site.worker(queues="celery,actions")
    site.beat()

    posted(site, [run], many=3)


def test_many_senders_send_each_action_once(make_site: Callable[..., Site], postgres_url: str):
    site = make_site(postgres_url, settings=QUICK)
    runs = [site.enqueue(f"run{number}", first="plan 5", second="plan 5") for number in range(6)]
    for _ in range(2):
        site.worker(ready=False)
    for _ in range(2):
        site.beat()

    nothing_lost_or_doubled(site, runs)
    posted(site, runs, many=10)
    assert {1} == {each.attempts for run in runs for each in run.actions}
