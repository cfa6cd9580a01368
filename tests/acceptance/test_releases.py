"""Two releases of one application at once: what one does not know it leaves to the other, and burns nothing."""

from __future__ import annotations

import pytest

from runclaim import RunState
from tests.harness import Site, until


@pytest.mark.site(names=["first", "second", "third"], settings={"dispatch_after": "500ms"})
def test_a_worker_of_an_older_release_leaves_alone_what_it_does_not_know(redis_site: Site):
    """
    INVARIANT: a run is executed by a release that knows its phase; any other burns no attempt of it.

    Breaks if a worker claims a phase that it cannot run, or publishing stops at a phase that it does not know.
    """
    newer = redis_site
    run, other = newer.enqueue("x"), newer.enqueue("y")
    newer.told["names"] = ["first"]
    old_worker = newer.worker(pool="threads", concurrency=1)
    until(lambda: run.view.phase == other.view.phase == "second", "the end of what it knows", so_far=newer.story)
    newer.publish(run)
    old_worker.said("Received unregistered task of type 'steps.second'")
    old_worker.said("runs were put back for a release that does")
    for each in (run, other):
        assert 0 == newer.dispatches(each), "a message that nobody could take is no dispatch"
        assert (RunState.QUEUED, 0, "pending") == (each.state, each.view.attempts, each.phases["second"])

    old_worker.kill_all()
    newer.told["names"] = ["first", "second", "third"]
    newer.worker(pool="threads")
    newer.ended(run, other, upkeep=True)
    for each in (run, other):
        assert {1} == {start.attempt for start in newer.starts(each)}


@pytest.mark.site(flow="review")
def test_a_flow_that_a_worker_does_not_know_is_left_to_its_own_application(redis_site: Site):
    site = redis_site
    theirs = site.enqueue("x")
    until(lambda: site.queued("celery"), "its message")
    site.told["flow"] = "audit"
    other_worker = site.worker(pool="threads")
    other_worker.said("Received unregistered task of type 'review.first'")
    beat = site.beat()
    beat.said("runclaim.dispatch", times=3)
    assert (RunState.QUEUED, 0) == (theirs.state, theirs.view.attempts)
    assert 0 == theirs.view.fence

    beat.kill_all()
    other_worker.kill_all()
    site.told["flow"] = "review"
    site.worker(pool="threads")
    site.publish(theirs)
    site.ended(theirs)


def test_a_run_goes_on_with_the_phases_it_was_enqueued_with(redis_site: Site):
    """A release that adds a phase does not change runs that are under way."""
    site = redis_site
    run = site.enqueue("x")
    site.told["names"] = ["first", "between", "second", "third"]
    site.worker(pool="threads")
    site.ended(run)

    assert [("x", "first"), ("x", "second"), ("x", "third")] == site.rows()
