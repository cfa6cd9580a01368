"""The runner on a real ledger: what each end of a body does to its run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text

from runclaim import Backoff, Blocked, Retry, RunState, Skip
from runclaim.flows.messages.message import Message
from runclaim.flows.run.ending import Ending
from runclaim.ledger.dispatch import Due

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

AT_ONCE = Backoff(first=timedelta(0), jitter=False)
AN_HOUR = Backoff(first=timedelta(hours=1), jitter=False, ceiling=timedelta(hours=2))


def lines(bench: Bench) -> list[tuple[str, int, str, str | None]]:
    told, bench.diary.lines = bench.diary.lines, []
    return told


def test_phases_follow_each_other_in_one_delivery(bench: Bench):
    flow = bench.flow()
    first = flow.phase(name="plan")(lambda ctx: ctx.input.base)
    flow.phase(name="deliver")(lambda ctx: ctx.result(first) + ctx.input.head)
    flow.phase(name="compound")(lambda ctx: ctx.key)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert [
        ("plan", 1, "success", "running"),
        ("deliver", 1, "success", "running"),
        ("compound", 1, "success", "succeeded"),
    ] == lines(bench)
    assert [] == bench.rung
    assert {"plan": "a1", "deliver": "a1b2", "compound": "acme/app:pr-7"} == run.results
    assert {} == bench.keeper._watched, "and nobody beats any more"


def test_a_phase_that_may_not_follow_goes_through_the_broker(bench: Bench):
    flow = bench.flow()
    for name in ("plan", "deliver"):
        flow.phase(name=name, queue=name)(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow, inline=lambda before, after: before.name == after.name)

    (due,) = bench.rung
    assert (due.run_id, due.phase, due.queue, due.fence) == (run.id, "deliver", "deliver", 2)
    assert [("plan", 1, "success", "queued")] == lines(bench)
    bench.deliver(flow)
    assert run.state is RunState.SUCCEEDED


def test_a_message_that_comes_again_starts_nothing(bench: Bench):
    """
    INVARIANT: however often a message is delivered, it starts its phase at most once.

    Breaks if the claim does not compare the fence that the message was sent at.
    """
    flow = bench.flow()
    starts: list[str] = []
    flow.phase(name="plan")(lambda ctx: starts.append("plan"))
    flow.phase(name="deliver", backoff=AN_HOUR)(lambda ctx: starts.append("deliver"))
    flow.enqueue(repo="acme/app", number=7)
    message = bench.rung[0]
    endings = [bench.deliver(flow, message).ending for _ in range(3)]

    assert [Ending.SUCCESS, Ending.DUPLICATE, Ending.DUPLICATE] == endings
    assert ["plan", "deliver"] == starts
    assert {("duplicates_refused", "review"): 2} == bench.totals()


@pytest.mark.parametrize("fence", [1, 7, 2**40])
def test_a_message_of_another_fence_starts_nothing(bench: Bench, fence: int):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)

    assert bench.deliver(flow, Due(run.id, fence, "review", "plan", None, "k", 0)).ending is Ending.DUPLICATE
    assert run.state is RunState.QUEUED


def test_an_error_is_tried_again_after_its_backoff_until_the_attempts_are_spent(bench: Bench):
    flow = bench.flow()

    @flow.phase(max_attempts=3, backoff=AT_ONCE)
    def plan(ctx):
        raise ValueError(f"attempt {ctx.attempt} of {ctx.key} \x00\ud800")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert [
        ("plan", 1, "retry", "queued"),
        ("plan", 2, "retry", "queued"),
        ("plan", 3, "failure", "failed"),
    ] == lines(bench)
    error = run.view.error
    assert ("ValueError", "attempt 3 of acme/app:pr-7 \ufffd?") == (error["type"], error["message"])
    assert 'raise ValueError(f"attempt {ctx.attempt}' in error["traceback"]


def test_an_error_waits_as_long_as_its_backoff_says(bench: Bench):
    flow = bench.flow()

    @flow.phase(backoff=AN_HOUR)
    def plan(ctx):
        raise ValueError("no")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert [("plan", 1, "retry", "queued")] == lines(bench)
    assert run.state is RunState.QUEUED


def test_a_retry_waits_as_long_as_it_asks(bench: Bench):
    flow = bench.flow()

    @flow.phase(backoff=AN_HOUR)
    def plan(ctx):
        if ctx.attempt == 1:
            raise Retry("not yet", after=timedelta(0))
        return "now"

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert [("plan", 1, "retry", "queued"), ("plan", 2, "success", "succeeded")] == lines(bench)
    assert "now" == run.result


def test_a_retry_in_seconds_is_a_mistake_that_says_so(bench: Bench):
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def plan(ctx):
        raise Retry(after=5)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    expected = "Retry(after=…) takes a timedelta such as timedelta(minutes=5), not 5"
    assert expected == run.view.error["message"]


def test_a_retry_beyond_the_calendar_waits_for_years_and_no_more(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        raise Retry(after=timedelta.max)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert [("plan", 1, "retry", "queued")] == lines(bench)


def test_a_blocked_run_waits_for_a_person(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        raise Blocked("who pays?")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert [("plan", 1, "blocked", "blocked")] == lines(bench)
    assert "who pays?" == run.view.error["message"]


def test_a_skipped_phase_completes_without_a_result(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx) -> list[str]:
        raise Skip("nothing to plan")

    flow.phase(name="deliver")(lambda ctx: [ctx.result(plan)])
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert [("plan", 1, "skipped", "running"), ("deliver", 1, "success", "succeeded")] == lines(bench)
    assert "phase.skipped" in bench.events(run)
    assert [None] == run.result


def test_a_result_that_is_no_json_fails_at_once_and_says_so(bench: Bench):
    flow = bench.flow()
    flow.phase(name="plan", max_attempts=5)(lambda ctx: {"a": object()})
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert [("plan", 1, "failure", "failed")] == lines(bench)
    assert "the result of review.plan: is not JSON: Encod" == run.view.error["message"][:45]


def test_an_input_that_no_longer_fits_its_declaration_fails_at_once_and_says_so(bench: Bench):
    """Breaks if the input is read outside of the attempt: the claim would lapse, again and again."""
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.execute("""UPDATE runclaim_runs SET input = '{"repo": "acme/app"}'""")
    bench.deliver(flow)

    assert run.state is RunState.FAILED
    assert "number: Object missing required field `number`" == run.view.error["message"]


def test_a_result_of_a_phase_that_is_not_complete_is_an_error_that_names_it(bench: Bench):
    flow = bench.flow()
    later = flow.phase(name="later", max_attempts=1)(lambda ctx: ctx.result(later))
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert "phase later of this run is not complete" in run.view.error["message"]


@pytest.mark.postgres
def test_a_run_that_somebody_holds_holds_up_no_other_of_its_message(postgres_bench: Bench):
    """
    INVARIANT: a transaction of the application that stays open costs at most its own run.

    Breaks if a delivery waits for a locked row, or counts its run as a duplicate.
    """
    bench = postgres_bench
    flow = bench.flow()
    flow.phase(name="deliver")(lambda ctx: ctx.input.number)
    held, free = flow.enqueue_many([{"repo": "acme/app", "number": number} for number in (1, 2)])
    bench.pace.note("review.deliver", 1e-6)
    with bench.database.begin() as conn:
        conn.execute(text("SELECT 1 FROM runclaim_runs WHERE id = :id FOR UPDATE"), {"id": held.id})
        deliver(bench, flow)
        during = [held.state, free.state]
    bench.deliver(flow, Due(held.id, 0, "review", "deliver", None, "pr-1", 0))

    assert [RunState.QUEUED, RunState.SUCCEEDED] == during
    assert held.state is RunState.SUCCEEDED
    assert {} == bench.totals()


@pytest.mark.postgres
def test_a_run_that_somebody_holds_for_a_moment_is_claimed_by_the_same_delivery(postgres_bench: Bench):
    """Breaks if a claim that passed its run over leaves it to the next dispatch at once."""
    bench = postgres_bench
    flow = bench.flow()
    flow.phase(name="deliver")(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=1)
    with bench.ledger.database.engine.connect() as conn:
        conn.execute(text("SELECT 1 FROM runclaim_runs WHERE id = :id FOR UPDATE"), {"id": run.id})
        # As soon as the first claim has passed it over.
        event.listen(bench.database.engine, "after_cursor_execute", lambda *_: conn.rollback(), once=True)
        bench.deliver(flow)

    assert run.state is RunState.SUCCEEDED
    assert 1 == run.view.attempts


def deliver(bench: Bench, flow: Flow) -> None:
    """One message that names everything that was rung."""
    message = Message.of([[due.run_id, due.fence] for due in bench.rung], 0, None)
    bench.rung.clear()
    bench.runner().deliver(
        flow, flow.phases["deliver"], message, inline=lambda _before, _after: True, watcher=bench.diary
    )
