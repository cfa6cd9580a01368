"""
The connection dies around a COMMIT: the client cannot know, so the ledger is asked, and what is then told is true.

Enqueuer and worker reach PostgreSQL through a proxy that cuts; the tests look on without it. No beat is up: whatever
comes right does so by reading back, not by rescue or dispatch.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from tests.faults.cutter import Cutter
from tests.faults.oracle import happened, nothing_lost_or_doubled
from tests.harness import Site, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What stands in the statements of each verb's transaction and in no other's.
MARK = {
    "enqueue": "INSERT INTO runclaim_run_keys",
    "claim": "started_at=coalesce",
    "complete": "INSERT INTO runclaim_phase_results",
    "fail": "verdict",
}
MODES = ["before", "after", "late"]


@pytest.fixture
def cutter(postgres_url: str) -> Iterator[Cutter]:
    with Cutter(postgres_url) as made:
        yield made


@pytest.fixture
def cut_site(make_site: Callable[..., Site], postgres_url: str, cutter: Cutter) -> Site:
    """A site whose processes and callers are cut, with a lease that does not lapse meanwhile."""
    site = make_site(postgres_url, settings={"lease": "30s"})
    site.told["database_url"] = cutter.url
    return site


@pytest.mark.parametrize("mode", MODES)
def test_an_enqueue_whose_commit_is_cut_makes_one_run_and_knows_it(cut_site: Site, cutter: Cutter, mode: str):
    before = cut_site.enqueue("connected")
    cutter.arm(mode, MARK["enqueue"])
    with late_delivery(cut_site, cutter, mode):
        run = cut_site.enqueue("cut")

    assert 1 == cutter.fired
    assert run.created
    assert not cut_site.enqueue("cut").created
    assert 1 == happened(cut_site, run, "run.enqueued")
    cut_site.worker(ready=False)
    nothing_lost_or_doubled(cut_site, [before, run])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verb,phase", [("claim", "first"), ("complete", "first"), ("complete", "third")])
def test_a_cut_commit_of_a_worker_starts_no_body_twice(
    cut_site: Site, cutter: Cutter, verb: str, phase: str, mode: str
):
    """
    INVARIANT: a commit whose answer is lost is read back, never assumed.

    Breaks if it is assumed lost (the claim is refused as a duplicate and lapses; the completed phase is given up) or
    assumed committed (a run goes on that nobody holds).
    """
    cut_site.worker(concurrency=1)
    held = {phase: "gate"} if verb == "complete" else {}
    if verb == "claim":
        cutter.arm(mode, MARK[verb])
    run = cut_site.enqueue("cut", **held)
    if verb == "complete":
        cut_site.started(run, phase)
        cutter.arm(mode, MARK[verb])
        cut_site.open("cut", phase)
    with late_delivery(cut_site, cutter, mode):
        until(lambda: cutter.fired == 1, "the cut", so_far=cut_site.story)

    nothing_lost_or_doubled(cut_site, [run])
    assert [1, 1, 1] == [start.attempt for start in cut_site.starts(run)]
    assert 3 == happened(cut_site, run, "phase.started")
    assert 3 == happened(cut_site, run, "phase.completed")
    assert "claimlost" not in cut_site.processes[0].text


@pytest.mark.parametrize("mode", MODES)
def test_a_cut_completion_is_known_again_though_its_rows_conflict(cut_site: Site, cutter: Cutter, mode: str):
    """The application's own unique key refuses the repeated rows before the ledger does."""
    with cut_site.database.begin() as conn:
        conn.execute(text("CREATE UNIQUE INDEX once ON harness_rows (run_id, phase)"))
    cut_site.worker(concurrency=1)
    cutter.arm(mode, MARK["complete"])
    run = cut_site.enqueue("cut")
    with late_delivery(cut_site, cutter, mode):
        until(lambda: cutter.fired == 1, "the cut", so_far=cut_site.story)

    nothing_lost_or_doubled(cut_site, [run])
    assert [1, 1, 1] == [start.attempt for start in cut_site.starts(run)]


@pytest.mark.parametrize("mode", MODES)
def test_a_cut_commit_of_a_failed_attempt_is_told_as_it_is(cut_site: Site, cutter: Cutter, mode: str):
    worker = cut_site.worker(concurrency=1)
    cut_site.beat()
    cutter.arm(mode, MARK["fail"])
    run = cut_site.enqueue("fails", first="fail 1")
    with late_delivery(cut_site, cutter, mode):
        until(lambda: cutter.fired == 1, "the cut", so_far=cut_site.story)

    nothing_lost_or_doubled(cut_site, [run])
    assert [1, 2] == [start.attempt for start in cut_site.starts(run, "first")]
    assert 1 == happened(cut_site, run, "phase.failed")
    assert "steps/first fails: retry, attempt 1" in worker.text


@contextlib.contextmanager
def late_delivery(site: Site, cutter: Cutter, mode: str) -> Iterator[None]:
    """
    When `late`, deliver the COMMIT once the repeated transaction waits for what the first one holds locked.

    A statement that is a transaction by itself holds nothing yet; it is delivered right after its repetition.
    """

    def watch() -> None:
        asked = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        waits = lambda: site.database.ask(lambda conn: conn.execute(asked).scalar_one())  # noqa: E731
        until(lambda: cutter.repeated.is_set() or waits(), "somebody to wait for a lock, or the repetition")
        cutter.deliver()

    with ThreadPoolExecutor(1) as beside:
        watching = beside.submit(watch) if mode == "late" else None
        yield
        if watching:
            watching.result()
