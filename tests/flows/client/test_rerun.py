"""Reruns through flows and handles: a new run of the same key, input as recorded, phases as declared now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.orm import Session

from runclaim import InputError, KeyConflict, RunState
from runclaim.errors import DeclarationError, RunNotFound, StateConflict
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.client.handle import Run
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench


@dataclass(frozen=True)
class Longer:
    repo: str
    number: int
    base: str = "a1"
    head: str = "b2"
    labels: tuple[str, ...] = ()


@pytest.fixture
def review(bench: Bench) -> Flow:
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: ctx.input.head)
    return flow


def test_a_rerun_runs_everything_again_and_the_key_names_it_from_then_on(bench: Bench, review):
    first = review.enqueue(repo="acme/app", number=7)
    bench.finish(review, first)
    again = first.rerun(by="ann")
    bench.finish(review, again)

    assert (0, 1) == (first.view.rerun, again.view.rerun)
    assert (True, RunState.SUCCEEDED, "b2") == (again.created, again.state, again.result)
    assert review.enqueue(repo="acme/app", number=7).id == again.id
    assert first.state is RunState.SUCCEEDED


def test_a_rerun_supersedes_the_keys_run_that_still_waits_and_rings(bench: Bench, review):
    first = review.enqueue(repo="acme/app", number=7)
    bench.rung.clear()
    again = review.using(rerun=True).enqueue(repo="acme/app", number=7)

    assert (RunState.SUPERSEDED, RunState.QUEUED) == (first.state, again.state)
    assert [again.id] == [due.run_id for due in bench.rung]


def test_a_rerun_of_a_key_without_a_run_is_its_run_0(bench: Bench, review):
    run = review.using(rerun=True).enqueue(repo="acme/app", number=7)

    assert (True, 0) == (run.created, run.view.rerun)


def test_a_rerun_in_the_applications_transaction_is_gone_with_it(bench: Bench, review):
    first = review.enqueue(repo="acme/app", number=7)
    bench.rung.clear()
    with Session(bench.ledger.database.engine) as session:
        review.using(rerun=True).enqueue(repo="acme/app", number=7, session=session)
        session.rollback()

    assert (RunState.QUEUED, 1, []) == (first.state, bench.count("runclaim_runs"), bench.rung)
    assert 1 == first.rerun().view.rerun


def test_many_reruns_in_one_transaction(bench: Bench, review):
    review.enqueue_many([PullRequest("acme/app", number) for number in (1, 2)])
    again = review.using(rerun=True).enqueue_many([PullRequest("acme/app", number) for number in (2, 3, 1)])

    assert [1, 0, 1] == [run.view.rerun for run in again]


def test_another_input_under_the_key_is_a_conflict_for_a_rerun_too(bench: Bench, review):
    review.enqueue(repo="acme/app", number=7)

    with pytest.raises(KeyConflict):
        review.using(rerun=True).enqueue(repo="acme/app", number=7, head="c3")
    assert 1 == bench.count("runclaim_runs")


def test_a_rerun_takes_the_input_as_recorded_and_the_phases_as_declared_now(bench: Bench, review):
    """A field with a default that came since is no other input; a phase that came since is run."""
    first = review.using(project="acme", priority=4).enqueue(repo="acme/app", number=7)
    deployed = bench.flow("review", Longer)
    deployed.phase(name="plan")(lambda ctx: ctx.input.head)
    deployed.phase(name="deliver")(lambda ctx: len(ctx.input.labels))
    again = Run(bench.ledger, first.id).rerun()

    assert {"repo": "acme/app", "number": 7, "base": "a1", "head": "b2"} == again.view.input
    assert ["plan", "deliver"] == list(again.phases)
    assert ("acme", 4, 1) == (again.view.project, again.view.priority, again.view.rerun)


@pytest.mark.parametrize("key", ["{repo}:{number}", "{repo}:pr-{number}:{head}"])
def test_a_run_whose_flow_makes_another_key_now_is_not_rerun_under_that(bench: Bench, review, key: str):
    first = review.enqueue(repo="acme/app", number=7)
    deployed = bench.flow("review", key=key)
    deployed.phase(name="plan")(lambda ctx: None)

    with pytest.raises(InputError, match="enqueue it again"):
        Run(bench.ledger, first.id).rerun()
    assert 1 == bench.count("runclaim_runs")


def test_what_is_not_there_cannot_be_rerun(bench: Bench, review):
    first = review.enqueue(repo="acme/app", number=7)
    elsewhere = LedgerAccess(lambda: bench.config, lambda: bench.rung)
    with pytest.raises(DeclarationError, match="no flow review"):
        Run(elsewhere, first.id).rerun()
    elsewhere.database.close()
    bench.execute("DELETE FROM runclaim_runs")

    with pytest.raises(RunNotFound):
        first.rerun()


def test_a_failed_run_that_was_rerun_says_why_it_cannot_be_retried(bench: Bench):
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def plan(ctx):
        raise ValueError("no")

    first = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, first)
    first.rerun()

    with pytest.raises(StateConflict, match="its key has a newer run"):
        first.retry()
