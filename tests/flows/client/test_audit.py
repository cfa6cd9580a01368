"""The journal of a run tells who and what ended it, on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runclaim import Blocked
from runclaim.errors import RunNotFound
from runclaim.flows.client.handle import Run
from runclaim.keys import uuid7
from runclaim.ledger.rescue import rescue_worker

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench


def one_phase(bench: Bench, body, **options) -> Flow:
    flow = bench.flow(subject="{repo}")
    flow.phase(name="plan", max_attempts=1, **options)(body)
    return flow


def last(run: Run) -> tuple[str, object]:
    return run.events[-1].type, run.events[-1].data


def test_a_success_names_the_worker(bench: Bench):
    flow = one_phase(bench, lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert ("run.succeeded", {"worker": "node:1"}) == last(run)
    assert ["run.enqueued", "run.started", "phase.started", "phase.completed"] == [e.type for e in run.events][:-1]


def test_a_failure_names_the_worker_and_what_was_raised(bench: Bench):
    flow = one_phase(bench, lambda ctx: 1 / 0)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert ("run.failed", {"worker": "node:1"}) == last(run)
    assert "ZeroDivisionError" == run.events[-2].data["type"]


def test_a_loss_that_ends_a_run_names_the_worker_that_was_lost(bench: Bench):
    lost = {}

    def body(ctx):
        lost.update(bench.database.run(lambda conn: rescue_worker(conn, "node:1")))

    flow = one_phase(bench, body, max_losses=1)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert {run.id: "failed"} == lost
    assert ("run.failed", {"why": "its worker died", "worker": "node:1"}) == last(run)


def test_a_cancel_names_who_asked(bench: Bench):
    flow = one_phase(bench, lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)
    run.cancel(by="ann")

    assert ("run.canceled", {"by": "ann"}) == last(run)


@pytest.mark.parametrize("ends", ["body", "check", "error", "rescue", "release"])
def test_a_cancel_of_a_running_run_names_who_asked_however_it_ends(bench: Bench, ends: str):
    """
    INVARIANT: whoever asked for the end stands beside it.

    Breaks if one of the ends of an attempt forgets to look who asked.
    """

    def body(ctx):
        run.cancel(by="ann")
        if ends == "error":
            raise ValueError("no")
        if ends == "rescue":
            bench.database.run(lambda conn: rescue_worker(conn, "node:1"))
        if ends == "release":
            bench.stopping = True
        if ends in {"check", "release"}:
            bench.keeper._beat(list(bench.keeper._watched.values()))
            ctx.check()

    flow = bench.flow()
    flow.phase(name="plan")(body)
    flow.phase(name="deliver")(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    kind, data = last(run)

    assert ("run.canceled", "ann") == (kind, data["by"])


def test_a_superseded_run_names_the_newer_one(bench: Bench):
    flow = one_phase(bench, lambda ctx: None)
    older = flow.enqueue(repo="acme/app", number=7)
    newer = flow.enqueue(repo="acme/app", number=8)

    assert ("run.superseded", {"by_run": newer.id}) == last(older)


def test_a_batch_names_for_each_superseded_run_the_newest_of_its_subject(bench: Bench):
    flow = one_phase(bench, lambda ctx: None)
    one, other = (flow.enqueue(repo=repo, number=1) for repo in ("acme/app", "acme/lib"))
    batch = flow.enqueue_many([{"repo": repo, "number": n} for n in (2, 3) for repo in ("acme/app", "acme/lib")])

    assert [("run.superseded", {"by_run": batch[2].id}), ("run.superseded", {"by_run": batch[3].id})] == [
        last(one), last(other),
    ]  # fmt: skip


def test_a_block_names_the_worker_and_a_resume_who_asked(bench: Bench):
    def body(ctx):
        raise Blocked("look")

    flow = one_phase(bench, body)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)
    blocked = last(run)
    run.resume(by="ann")

    assert ("run.blocked", {"worker": "node:1"}) == blocked
    assert ("run.resumed", {"by": "ann"}) == last(run)


def test_a_run_that_is_not_there_has_no_events(bench: Bench):
    with pytest.raises(RunNotFound):
        _ = Run(bench.ledger, uuid7()).events
