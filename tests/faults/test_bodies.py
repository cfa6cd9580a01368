"""Bodies that hang, kill their process or hold the GIL: each ends within its budget, and its neighbours go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runclaim.states import RunState
from tests.faults.oracle import happened, is_so, nothing_lost_or_doubled
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Site


def test_a_body_that_hangs_under_a_healthy_heartbeat_ends_at_its_max_duration(
    make_site: Callable[..., Site], postgres_url: str
):
    """
    INVARIANT: no heartbeat passes the deadline.

    Breaks if the heartbeat extends a lease past `deadline_at`: the run then stays with its hanging body for ever.
    """
    site = make_site(postgres_url, phases={"second": {"max_duration": 3}})
    site.worker(ready=False)
    site.beat()
    run = site.enqueue("hangs", second="hang 1")
    neighbour = site.enqueue("neighbour")
    site.started(run, "second")
    # Healthy: the lease has been extended since the claim.
    beating = "lease_expires_at > deadline_at - interval '1 second'"
    until(lambda: is_so(site, run, beating), "the lease to be extended up to the deadline", so_far=site.story)

    nothing_lost_or_doubled(site, [run, neighbour])
    assert [1, 2] == [start.attempt for start in site.starts(run, "second")]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_body_that_hears_nothing_loses_its_claim_at_its_max_duration(
    make_site: Callable[..., Site], postgres_url: str, pool: str
):
    """No signal reaches it; its slot is held, the run goes on in another."""
    site = make_site(postgres_url, phases={"second": {"max_duration": 2}})
    worker = site.worker(pool=pool, concurrency=2, ready=False)
    site.beat()
    run = site.enqueue("deaf", second="deaf 1")

    nothing_lost_or_doubled(site, [run])
    worker.said("is past its max_duration")
    assert [1, 2] == [start.attempt for start in site.starts(run, "second")]
    assert 1 == happened(site, run, "phase.rescued")


@pytest.mark.parametrize("options,starts", [({}, 5), ({"max_attempts": 2}, 2), ({"max_losses": 3}, 3)])
def test_a_body_that_kills_its_process_each_time_fails_at_its_budget_and_harms_nobody(
    make_site: Callable[..., Site], postgres_url: str, options: dict[str, int], starts: int
):
    site = make_site(postgres_url, phases={"second": options})
    worker = site.worker(ready=False)
    site.beat()
    poison = site.enqueue("poison", second="kill")
    neighbours = [site.enqueue(f"neighbour{number}") for number in range(4)]
    site.ended(poison, state=RunState.FAILED)

    assert [*range(1, starts + 1)] == [start.attempt for start in site.starts(poison, "second")]
    assert len({start.pid for start in site.starts(poison, "second")}) == starts
    assert "WorkerLost" == poison.view.error["type"]
    assert worker.is_up
    site.ended(*neighbours)
    assert [] == site.doubled()
    assert 1 + 4 * 3 == len(site.rows())  # of the poisoned run, the first phase


def test_a_killed_child_gives_back_its_own_claim_and_no_other(make_site: Callable[..., Site], postgres_url: str):
    """No beat and a lease of ten minutes: only the dead child's parent can know, and it knows which child."""
    site = make_site(postgres_url, settings={"lease": "10m"})
    worker = site.worker(concurrency=2)
    killed, spared = site.enqueue("killed", first="gate"), site.enqueue("spared", first="gate")
    (victim,), (other,) = site.started(killed, "first"), site.started(spared, "first")
    worker.kill_child(victim.pid)
    site.open("killed", "first")
    site.started(killed, "first", times=2)
    site.open("spared", "first")

    nothing_lost_or_doubled(site, [killed, spared])
    assert victim.pid != other.pid
    assert (1, 0) == (happened(site, killed, "phase.rescued"), happened(site, spared, "phase.rescued"))
    assert 3 == len(site.starts(spared))


def test_a_body_that_holds_the_gil_beyond_its_lease_runs_again_and_completes_once(either_site: Site):
    """The heartbeat's thread gets no turn; another process takes over, and only one of the two completes."""
    site = either_site
    # Both are up before it begins: on a busy machine the other would else come too late to take over.
    workers = [site.worker(concurrency=1) for _ in range(2)]
    site.beat()
    run = site.enqueue("hog", second="hog 6")

    nothing_lost_or_doubled(site, [run])
    lost = "steps/second hog: claimlost, attempt 1"
    until(lambda: any(lost in worker.text for worker in workers), "the hog to hear of it", so_far=site.story)
    nothing_lost_or_doubled(site, [run])
    assert [1, 2] == [start.attempt for start in site.starts(run, "second")]
    assert 1 == happened(site, run, "phase.rescued")
