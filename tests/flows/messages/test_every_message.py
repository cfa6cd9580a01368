"""Every message of a run says the same of it, whoever sends it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.orm import Session

from runclaim import RunState
from runclaim.errors import LedgerUnavailable
from runclaim.flows.fail_open.local_records import LocalRecord, LocalRecords, Outcome
from runclaim.flows.fail_open.reconcile import Fate, Reconciler, name_of_ledger
from runclaim.flows.inbound.route import OutsideEvent
from runclaim.flows.messages.message import Message, of_claim, of_view, with_inputs
from runclaim.flows.messages.payload import MAX_CARRIED_BYTES
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.keys import nonce, uuid7
from runclaim.ledger.dispatch import Due
from tests.harness.bench import PullRequest, ends_as_its_head_says

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim import Run
    from runclaim.database import Database
    from runclaim.flows.client.enqueuer import Enqueuer
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

PULL = PullRequest("acme/app", 7)
HEADERS = {"tenant": "acme"}


def declared(bench: Bench, *, fail_open: bool) -> Flow:
    """A flow whose phases have queues of their own; the second waits for a signal."""
    bench.ledger.headers_of = lambda _new: HEADERS
    flow = bench.flow("review", subject="{repo}", fail_open=fail_open)

    flow.phase(name="plan", queue="quick", idempotent=True)(ends_as_its_head_says)
    flow.phase(name="check", queue="quick", idempotent=True)(lambda ctx: None)
    flow.phase(name="deliver", queue="slow", idempotent=True, on="approved")(lambda ctx: None)
    return flow


def using(flow: Flow, **more: Any) -> Enqueuer:
    return flow.using(project="acme", priority=3, **more)


def same_queue(before: Any, after: Any) -> bool:
    return bool(before.options.queue == after.options.queue)


def enqueued(bench: Bench, flow: Flow) -> Run:
    return using(flow).enqueue(PULL)


def enqueued_in_a_transaction(bench: Bench, flow: Flow) -> Run:
    with Session(bench.ledger.database.engine) as session, session.begin():
        return using(flow).enqueue(PULL, session=session)


def recovered(bench: Bench, flow: Flow) -> Run:
    return using(flow, run_id=uuid7()).enqueue(PULL)


def enqueued_as_a_rerun(bench: Bench, flow: Flow) -> Run:
    enqueued(bench, flow)
    bench.rung.clear()
    return using(flow, rerun=True).enqueue(PULL)


def rerun(bench: Bench, flow: Flow) -> Run:
    run = enqueued(bench, flow)
    bench.rung.clear()
    return run.rerun()


def ended(bench: Bench, flow: Flow, head: str) -> Run:
    run = using(flow).enqueue(PullRequest("acme/app", 7, head=head))
    bench.deliver(flow, inline=same_queue)
    assert [] == bench.rung
    return run


def retried(bench: Bench, flow: Flow) -> Run:
    run = ended(bench, flow, "failing")
    run.retry()
    return run


def resumed(bench: Bench, flow: Flow) -> Run:
    run = ended(bench, flow, "blocked")
    run.resume()
    return run


def a_rerun_retried(bench: Bench, flow: Flow) -> Run:
    run = ended(bench, flow, "failing").rerun()
    bench.deliver(flow)
    run.retry()
    return run


def a_rerun_gone_on(bench: Bench, flow: Flow) -> Run:
    run = rerun(bench, flow)
    bench.deliver(flow, inline=lambda before, after: False)
    return run


def signaled(bench: Bench, flow: Flow) -> Run:
    return ended(bench, flow, "b2").signal("approved")


def routed(_bench: Bench, flow: Flow) -> Run:
    """By an event that makes the run."""
    return flow.route(OutsideEvent(PULL)).run


def routed_on(bench: Bench, flow: Flow) -> Run:
    """By an event that the run waits for."""
    run = flow.enqueue(PULL)
    bench.deliver(flow, inline=same_queue)
    assert flow.route(OutsideEvent(PULL, phase="deliver")).started
    return run


def dispatched(bench: Bench, flow: Flow) -> Run:
    bench.rung.silent = True
    run = enqueued(bench, flow)
    bench.rung.silent = False
    bench.execute("UPDATE runclaim_runs SET dispatch_due_at = available_at")
    assert 1 == dispatch_due(bench.database, bench.rung, flows=bench.flows, spacing=timedelta(seconds=30))
    return run


def gone_on(bench: Bench, flow: Flow) -> Run:
    """After a phase, to the next one by way of the broker."""
    run = enqueued(bench, flow)
    bench.deliver(flow, inline=lambda before, after: False)
    return run


def given_back(bench: Bench, flow: Flow, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A phase that was claimed with the end of the one before, by a worker that stops at this moment."""
    run = enqueued(bench, flow)
    monkeypatch.setattr(bench.diary, "ended", lambda *_: setattr(bench, "stopping", True))
    bench.deliver(flow)
    return run


def reconciled(bench: Bench, flow: Flow) -> Run:
    """A phase that was done without the ledger is recorded, and the next one is due."""
    run = enqueued(bench, flow)
    due = bench.rung.pop()
    record = LocalRecord(
        ledger=name_of_ledger(bench.config.database_url),
        flow=flow.name,
        run_id=run.id,
        phase=due.phase,
        fence=due.fence,
        owner=nonce(),
        worker="node:1",
        carried=expected(run, flow).carried or {},
        opened=1,
        outcome=Outcome(result="null", skipped=None, ran_seconds=0.1),
    )
    records = LocalRecords(bench.folder)
    records.write(record)
    assert Fate.COMPLETED is Reconciler(bench.ledger, records).reconcile(record)
    return run


PUBLISHERS: dict[str, Callable[[Bench, Flow], Run]] = {
    made.__name__: made
    for made in (
        enqueued,
        enqueued_in_a_transaction,
        recovered,
        enqueued_as_a_rerun,
        rerun,
        retried,
        resumed,
        a_rerun_retried,
        a_rerun_gone_on,
        signaled,
        routed,
        routed_on,
        dispatched,
        gone_on,
    )
}


def expected(run: Run, flow: Flow) -> Due:
    """The message of the run as it stands in the ledger."""
    view = run.view
    carried = {
        "project": view.project,
        "key": "acme/app:pr-7",
        "subject": "acme/app",
        "priority": view.priority,
        "input": view.input,
        "headers": HEADERS,
    } | ({"rerun": 1} if view.rerun else {})
    queue = flow.phases[view.phase].options.queue
    return Due(
        run.id,
        view.fence,
        "review",
        view.phase,
        queue,
        "acme/app:pr-7",
        view.priority,
        carried if flow.fail_open else None,
    )


@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "fails open"])
@pytest.mark.parametrize("publisher", PUBLISHERS.values(), ids=PUBLISHERS)
def test_a_message_says_what_the_ledger_has_whoever_sends_it(
    bench: Bench, publisher: Callable[[Bench, Flow], Run], fail_open: bool
):
    """
    INVARIANT: each message has its run's fence, queue, key and priority; it carries the input if the flow fails open.

    Breaks if one of those who publish makes its message by hand: a retried run loses its priority, and a worker that
    cannot reach the ledger has no input.
    """
    flow = declared(bench, fail_open=fail_open)
    run = publisher(bench, flow)

    assert [expected(run, flow)] == bench.rung


@pytest.mark.parametrize("fail_open", [False, True], ids=["closed", "fails open"])
def test_a_phase_that_is_given_back_is_published_as_any(bench: Bench, monkeypatch, fail_open: bool):
    flow = declared(bench, fail_open=fail_open)
    run = given_back(bench, flow, monkeypatch)

    assert (RunState.QUEUED, "check") == (run.state, run.view.phase)
    assert [expected(run, flow)] == bench.rung


def test_a_phase_after_one_that_was_done_without_the_ledger_is_published_as_any(bench: Bench):
    flow = declared(bench, fail_open=True)
    run = reconciled(bench, flow)

    assert [expected(run, flow)] == bench.rung


def test_what_has_failed_once_is_alone_in_its_message_until_its_phase_is_complete(bench: Bench):
    flow = declared(bench, fail_open=False)
    flow.phases["plan"].body = lambda _ctx: 1 / 0
    run = enqueued(bench, flow)
    first = of_view(view=run.view, flow=flow)
    bench.deliver(flow)
    seen = run.view.fence
    bench.execute("UPDATE runclaim_runs SET available_at = enqueued_at")
    (claim,) = bench.runner()._claim(flow.phases["plan"], [(run.id, seen)])
    next_phase = flow.described(bench.config).next_phase(claim)

    assert (False, True) == (first.alone, of_view(view=run.view, flow=flow).alone)
    assert of_claim(claim=claim, flow=flow, fence=claim.fence + 1).alone
    assert not of_claim(claim=claim, flow=flow, fence=claim.fence + 1, next_phase=next_phase).alone


def test_runs_that_are_passed_on_keep_what_their_message_said(bench: Bench):
    """They came in one message, which carries no input; their keys are read by whoever claims them."""
    flow = declared(bench, fail_open=False)
    runs = [using(flow).enqueue(PullRequest(f"acme/{number}", 7)) for number in range(3)]
    bench.rung.clear()
    message = Message.of([[run.id, 0] for run in runs], 0, None)
    bench.deliverer(flow).deliver(flow, flow.phases["plan"], message, inline=same_queue, watcher=bench.diary)

    assert [Due(run.id, 0, "review", "plan", "quick", None, 3) for run in runs[1:]] == bench.rung


def test_an_input_above_the_cap_is_not_carried(bench: Bench):
    flow = declared(bench, fail_open=True)
    run = using(flow).enqueue(PullRequest("acme/app", 7, head="x" * MAX_CARRIED_BYTES))

    assert [replace(expected(run, flow), carried=None)] == bench.rung


def test_a_ledger_that_goes_away_before_a_message_is_sent_leaves_it_without_an_input(bench: Bench):
    flow = declared(bench, fail_open=True)
    run = enqueued(bench, flow)
    due = [replace(bench.rung[0], carried=None)]

    def away() -> Database:
        raise LedgerUnavailable("away")

    assert due == with_inputs(away, flows=bench.flows, due=due)
    assert [expected(run, flow)] == with_inputs(lambda: bench.database, flows=bench.flows, due=due)


def test_flows_that_do_not_fail_open_ask_the_ledger_for_nothing_when_they_publish(bench: Bench):
    flow = declared(bench, fail_open=False)
    enqueued(bench, flow)

    def unused() -> Database:
        raise AssertionError("nothing is to be read")

    assert bench.rung == with_inputs(unused, flows=bench.flows, due=bench.rung)
