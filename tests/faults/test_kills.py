"""SIGKILL at every named place: of the pool child that passes it, of its parent, of the process that enqueues."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import redis

from runclaim import failpoints
from tests.faults import test_actions
from tests.faults.oracle import dispatched, happened, is_so, nothing_lost_or_doubled
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.servers import Server
    from tests.harness import Process, Site

#: The places that a run passes in a worker: has the body run there, and is a claim in the ledger?
PASSED_BY_A_RUN = {
    "claim.before_commit": (False, False),
    "claim.after_commit": (False, True),
    "body.before": (False, True),
    "body.after": (True, True),
    "complete.before_cas": (True, True),
    "complete.before_commit": (True, True),
    "complete.after_commit": (False, True),  # the claim of the next phase, whose body has not run
}
ON_POSTGRESQL = [
    pytest.param(place, victim, "postgres_url", marks=pytest.mark.postgres, id=f"{victim}-{place}")
    for place in PASSED_BY_A_RUN
    for victim in ("kill", "killparent")
]
ON_SQLITE = [
    pytest.param(place, victim, "sqlite_url", id=f"{victim}-{place}-sqlite")
    for place, victim in (
        ("claim.before_commit", "killparent"),
        ("claim.after_commit", "kill"),
        ("complete.before_commit", "killparent"),
        ("complete.after_commit", "kill"),
    )
]


def test_every_failpoint_has_its_fault_test():
    here = {*PASSED_BY_A_RUN, "dispatch.after_commit", "rescue.after_commit"}

    assert set(failpoints.NAMES) == here | {"enqueue.before_commit", "enqueue.after_commit"} | set(test_actions.PLACES)


@pytest.mark.parametrize("place,victim,url", ON_POSTGRESQL + ON_SQLITE)
def test_a_worker_killed_where_a_run_passes_loses_and_doubles_nothing(
    make_site: Callable[..., Site], request: pytest.FixtureRequest, place: str, victim: str, url: str
):
    site = make_site(request.getfixturevalue(url))
    body_ran, claimed = PASSED_BY_A_RUN[place]
    runs = [site.enqueue(f"run{number}") for number in range(3)]
    killed_at(site, place, victim)

    nothing_lost_or_doubled(site, runs)
    rescued = sum(happened(site, run, "phase.rescued") for run in runs)
    assert any(start.attempt > 1 for start in site.starts()) == bool(rescued), site.story()
    # What no rescue gave back was not started again.
    assert 9 <= len(site.starts()) <= 9 + rescued, site.story()
    if victim == "kill":  # a child may get a little further before it follows its parent
        assert rescued >= claimed, site.story()
        assert len(site.starts()) >= 9 + body_ran, site.story()


def test_a_worker_killed_between_a_completion_and_the_next_message_loses_nothing(
    make_site: Callable[..., Site], postgres_url: str
):
    """The next phase has a queue of its own; its message was never sent, and only the ledger knows."""
    site = make_site(postgres_url, phases={"second": {"queue": "apart"}})
    run = site.enqueue("between")
    killed_at(site, "complete.after_commit", "kill", queues="celery,apart")

    nothing_lost_or_doubled(site, [run])
    assert [1, 1, 1] == [start.attempt for start in site.starts(run)]
    assert 0 == happened(site, run, "phase.rescued")
    assert dispatched(site) >= 1


@pytest.mark.parametrize("victim", ["kill", "killparent"])
def test_a_dispatch_killed_before_it_publishes_loses_nothing(site: Site, victim: str):
    run = site.stage.steps.using(delay=timedelta(milliseconds=100)).enqueue(name="late")
    killed_at(site, "dispatch.after_commit", victim)

    nothing_lost_or_doubled(site, [run])
    # The stamp of the killed dispatch is in the ledger; the message of a second one was published.
    assert [1, 1, 1] == [start.attempt for start in site.starts(run)]


@pytest.mark.parametrize("victim", ["kill", "killparent"])
def test_a_rescue_killed_after_its_commit_gives_back_once(site: Site, victim: str):
    worker = site.worker()
    run = site.enqueue("orphan", second="gate")
    site.started(run, "second")
    worker.kill_all()
    until(lambda: is_so(site, run, "lease_expires_at <= runclaim_now()"), "the lease to lapse")
    site.open("orphan", "second")
    killed_at(site, "rescue.after_commit", victim)

    nothing_lost_or_doubled(site, [run])
    assert 1 == happened(site, run, "phase.rescued")
    assert [1, 2] == [start.attempt for start in site.starts(run, "second")]


def killed_at(site: Site, place: str, victim: str, *, queues: str | None = None) -> Process:
    """A beat, and a worker that is killed at `place`; as a supervisor would, start another when all of it is gone."""
    landed = site.folder / "landed"
    worker = site.worker(ready=False, queues=queues, env={"RUNCLAIM_FAILPOINTS": f"{place}={victim}@{landed}"})
    site.beat()
    until(landed.exists, f"somebody to pass {place}", so_far=site.story)
    if victim == "killparent":
        worker.wait()
        return site.worker(ready=False)
    return worker


@pytest.mark.parametrize("place,exists", [("enqueue.before_commit", False), ("enqueue.after_commit", True)])
def test_a_killed_enqueuer_leaves_a_whole_run_or_none(
    either_site: Site, valkey_server: Server, place: str, exists: bool
):
    """
    INVARIANT: a message is published after the commit of its run, never before.

    Breaks if the enqueuer publishes inside its transaction: a message is then out for a run that may never be.
    """
    site = either_site
    landed = site.folder / "landed"
    command = [sys.executable, "-m", "tests.faults.enqueuer", "key"]
    victim = site.start("enqueuer", command, env={"RUNCLAIM_FAILPOINTS": f"{place}=kill@{landed}"})

    assert -9 == victim.wait()
    assert landed.exists()
    assert "acknowledged" not in victim.text
    with redis.Redis.from_url(valkey_server.url) as client:
        assert 0 == client.llen("celery")
    # The caller was told nothing, and asks again.
    again = site.enqueue("key")
    assert again.created is not exists
    site.worker(ready=False)
    site.beat()
    nothing_lost_or_doubled(site, [again])
    assert 1 == happened(site, again, "run.enqueued")
