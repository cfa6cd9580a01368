"""Recovery through flows: a run under an id that its caller names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.orm import Session

from runclaim import InputError, RunExists, RunState
from runclaim.errors import DeclarationError
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

ID = "0195c0de-0000-7000-8000-000000000007"


@pytest.fixture
def review(bench: Bench) -> Flow:
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: ctx.run_id)
    return flow


def test_a_recovered_run_is_published_and_runs_like_any_other(bench: Bench, review):
    run = review.using(run_id=ID.upper()).enqueue(repo="acme/app", number=7)
    bench.finish(review, run)

    assert (ID, True, ID) == (run.id, run.created, run.result)
    assert ID == review.enqueue(repo="acme/app", number=7).id


def test_a_run_that_is_there_is_never_found_by_a_recovery(bench: Bench, review):
    recovery = review.using(run_id=ID)
    run = recovery.enqueue(repo="acme/app", number=7)
    bench.rung.clear()

    with pytest.raises(RunExists) as same:
        recovery.enqueue(repo="acme/app", number=7)
    with pytest.raises(RunExists) as other:
        review.using(run_id=ID.replace("7", "8")).enqueue(repo="acme/app", number=7)
    assert (ID, ID, RunState.QUEUED) == (same.value.found, other.value.found, run.state)
    assert [] == bench.rung


def test_a_recovery_in_the_applications_transaction_is_gone_with_it(bench: Bench, review):
    recovery = review.using(run_id=ID)
    with Session(bench.ledger.database.engine) as session:
        recovery.enqueue(repo="acme/app", number=7, session=session)
        session.rollback()

    assert recovery.enqueue(repo="acme/app", number=7).created


@pytest.mark.parametrize("malformed", ["", "7", ID[:-1], "00000000-0000-0000-0000-000000000000", 8, b"9"])
def test_a_malformed_id_is_refused_by_name(laptop: Bench, malformed):
    flow = laptop.flow()
    flow.phase(name="plan")(lambda ctx: None)

    with pytest.raises(InputError, match=r"^run_id: is .*; write a UUID such as "):
        flow.using(run_id=malformed)


def test_one_id_names_one_run_and_no_rerun(laptop: Bench):
    flow = laptop.flow()
    flow.phase(name="plan")(lambda ctx: None)

    with pytest.raises(InputError, match="run_id: names one run, but 2 inputs were given"):
        flow.using(run_id=ID).enqueue_many([PullRequest("acme/app", 1), PullRequest("acme/app", 2)])
    with pytest.raises(DeclarationError, match="give either rerun=True or run_id=…"):
        flow.using(run_id=ID, rerun=True)
