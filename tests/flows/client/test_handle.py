"""The handle on a run: where it stands, what it gave, how it is stopped, waited for and started again."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runclaim import Blocked, RunState
from runclaim.config import Config
from runclaim.errors import LedgerUnavailable, RunFailed, RunNotFound, StateConflict, WaitTimeout
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.client.handle import Run
from runclaim.keys import uuid7

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

A_SECOND = timedelta(seconds=1)
LONG = timedelta(seconds=60)


@dataclass
class Found:
    paths: list[str]


@pytest.fixture
def review(bench: Bench) -> Flow:
    flow = bench.flow()

    @flow.phase
    def plan(ctx) -> Found:
        return Found([ctx.input.base])

    @flow.phase
    def deliver(ctx) -> int:
        return len(ctx.result(plan).paths)

    return flow


@pytest.fixture
def queued(review: Flow) -> Run:
    return review.enqueue(repo="acme/app", number=7)


def stopping_flow(bench: Bench, error: type[Exception]) -> Flow:
    flow = bench.flow("stopping")

    @flow.phase(max_attempts=1)
    def deliver(ctx):
        if ctx.input.base == "a1" and not bench.stopping:
            raise error("not today")
        return "done"

    return flow


def test_a_run_tells_where_it_stands(bench: Bench, review, queued):
    before = (queued.state, queued.phases, queued.results)
    bench.deliver(review)

    assert (RunState.QUEUED, {"plan": "pending", "deliver": "pending"}, {}) == before
    assert queued.state is RunState.SUCCEEDED
    assert {"plan": "complete", "deliver": "complete"} == queued.phases
    assert {"plan": Found(["a1"]), "deliver": 1} == queued.results
    assert (1, 1) == (queued.result, queued.wait(A_SECOND))


def test_a_handle_made_from_an_id_knows_what_the_flow_knows(bench: Bench, review, queued):
    bench.deliver(review)

    assert review.get(queued.id).results["plan"] == Found(["a1"])
    assert {"paths": ["a1"]} == Run(bench.ledger, queued.id).results["plan"]
    assert f"<run {queued.id} (created)>" == repr(queued)


def test_a_run_that_does_not_exist_says_so(review):
    nobody = review.get(uuid7())

    for ask in (lambda: nobody.state, nobody.wait, nobody.cancel, nobody.retry, nobody.resume):
        with pytest.raises(RunNotFound, match=r"it never existed, or was purged after its retention"):
            ask()


def test_there_is_no_result_before_the_end(queued):
    with pytest.raises(StateConflict, match=r"cannot read the result of run .*: it is queued"):
        _ = queued.result


def test_waiting_ends_with_the_run(bench: Bench, review, queued):
    waited: list[object] = []
    waiter = threading.Thread(target=lambda: waited.append(queued.wait(LONG)))
    waiter.start()
    bench.deliver(review)
    waiter.join(60)

    assert [1] == waited


def test_waiting_in_vain_says_how_the_run_stands(queued):
    with pytest.raises(WaitTimeout, match=r"is still queued after 0.05 s"):
        queued.wait(timedelta(seconds=0.05))


@pytest.mark.parametrize("error, state", [(ValueError, "failed"), (Blocked, "blocked")])
def test_waiting_for_a_run_that_stops_tells_why(bench: Bench, error, state):
    flow = stopping_flow(bench, error)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    with pytest.raises(RunFailed) as told:
        run.wait(LONG)
    assert f"run {run.id} ended {state}: {error.__name__}: not today" == str(told.value)


def test_a_waiting_run_is_canceled_at_once_and_twice_is_fine(bench: Bench, review, queued):
    assert [RunState.CANCELED, RunState.CANCELED] == [queued.cancel(by="ann"), queued.cancel()]
    bench.deliver(review)

    assert [] == bench.diary.lines
    assert ["run.enqueued", "run.canceled"] == bench.events(queued)


def test_a_running_run_is_asked_to_stop(bench: Bench):
    flow = bench.flow()
    told: list[str] = []

    @flow.phase
    def deliver(ctx):
        told.extend([str(run.cancel()), str(run.cancel())])

    @flow.phase
    def never(ctx):
        told.append("never")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert (["running", "running"], RunState.CANCELED) == (told, run.state)
    assert {"deliver": "complete", "never": "pending"} == run.phases


def test_a_run_that_has_ended_is_not_canceled(bench: Bench, review, queued):
    bench.deliver(review)

    with pytest.raises(StateConflict, match=r"cannot cancel run .*: it is succeeded"):
        queued.cancel()


def test_a_failed_run_starts_its_phase_again(bench: Bench):
    flow = stopping_flow(bench, ValueError)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.stopping = True  # the cause is mended
    run.retry(by="ann")

    assert [run.id] == [due.run_id for due in bench.rung]
    bench.deliver(flow)
    assert (RunState.SUCCEEDED, "done") == (run.state, run.result)


def test_a_blocked_run_goes_on_from_its_phase(bench: Bench):
    flow = stopping_flow(bench, Blocked)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.stopping = True
    run.resume(by="ann")
    bench.deliver(flow)

    assert run.state is RunState.SUCCEEDED


def test_only_what_stopped_is_started_again(queued):
    with pytest.raises(StateConflict, match=r"cannot retry run .*: it is queued \(only a failed run can be\)"):
        queued.retry()
    with pytest.raises(StateConflict, match=r"cannot resume run .*: it is queued \(only a blocked run can be\)"):
        queued.resume()


def test_a_run_whose_subject_moved_on_is_not_started_again(bench: Bench):
    flow = bench.flow(key="{repo}:{head}", subject="{repo}")

    @flow.phase(max_attempts=1)
    def deliver(ctx):
        raise ValueError("no")

    older = flow.enqueue(repo="acme/app", number=7, head="h1")
    bench.deliver(flow)
    flow.enqueue(repo="acme/app", number=7, head="h2")

    with pytest.raises(StateConflict, match=r"cannot retry run .*: it is failed \(its subject has a newer run\)"):
        older.retry()


def test_a_ledger_that_is_away_is_told_as_that(laptop: Bench):
    """
    INVARIANT: a caller never has to know the errors of a database driver.

    Breaks if a handle reads past `Database.ask`.
    """
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    away = Config(database_url=nowhere, ledger_patience=timedelta(milliseconds=50))
    run = Run(LedgerAccess(lambda: away, lambda: laptop.rung), uuid7())

    for ask in (lambda: run.state, lambda: run.results, run.cancel, run.retry):
        with pytest.raises(LedgerUnavailable, match=r"the ledger .*nobody.* does not answer .*; try again"):
            ask()
