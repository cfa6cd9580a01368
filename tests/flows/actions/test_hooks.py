"""Hooks: told once a run and phase, however often its task comes or is tried."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runclaim import Backoff, Blocked
from runclaim.errors import DeclarationError
from runclaim.ledger.rescue import rescue

if TYPE_CHECKING:
    from runclaim.flows.actions.hooks import HookEvent
    from tests.harness.bench import Bench

AT_ONCE = Backoff(first=timedelta(0), jitter=False)


def test_a_hook_hears_once_of_each_complete_phase(bench: Bench):
    heard: list[HookEvent] = []
    flow = bench.flow()
    for name in ("plan", "deliver"):
        flow.phase(name=name)(lambda ctx: ctx.phase)

    @flow.on_complete
    def tell(event):
        heard.append(event)

    run = flow.enqueue(repo="acme/app", number=7)
    message = bench.rung[0]
    for _ in range(3):
        bench.deliver(flow, message)
        bench.send()

    assert [("plan", "complete"), ("deliver", "complete")] == [(event.phase, event.state) for event in heard]
    assert {(run.id, "review", "acme/app:pr-7")} == {(event.run_id, event.flow, event.key) for event in heard}


def test_a_hook_hears_once_that_a_run_needs_a_person(bench: Bench):
    heard: list[HookEvent] = []
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        raise Blocked("ask ada")

    @flow.on_blocked
    def tell(event):
        heard.append(event)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.send()
    run.resume()
    bench.deliver(flow)
    bench.send()

    assert [("blocked", "ask ada")] == [(event.state, event.error["message"]) for event in heard]


def test_a_hook_hears_that_a_run_has_failed_and_not_of_attempts_that_are_tried_again(bench: Bench):
    heard: list[HookEvent] = []
    flow = bench.flow()

    @flow.phase(max_attempts=3, backoff=AT_ONCE)
    def plan(ctx):
        raise ValueError(f"attempt {ctx.attempt}")

    @flow.on_failed
    def tell(event):
        heard.append(event)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)
    bench.send()

    assert ["attempt 3"] == [event.error["message"] for event in heard]


def test_a_hook_hears_of_a_run_whose_workers_died(bench: Bench):
    heard: list[HookEvent] = []
    flow = bench.flow()

    @flow.phase(max_losses=1)
    def plan(ctx):
        bench.execute("UPDATE runclaim_runs SET lease_expires_at = enqueued_at")
        bench.database.run(lambda conn: rescue(conn, hooks=flow.described(bench.config).hooks_of_stop))

    @flow.on_failed
    def tell(event):
        heard.append(event)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.send()

    assert "failed" == run.state
    assert ["WorkerLost"] == [event.error["type"] for event in heard]


def test_a_hook_that_raises_is_tried_again(bench: Bench):
    heard: list[str] = []
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)

    @flow.on_complete
    def tell(event):
        heard.append(event.phase)
        if len(heard) == 1:
            raise ConnectionError("the chat is down")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.send()
    assert "the chat is down" in run.actions[0].error["message"]
    bench.execute("UPDATE runclaim_actions SET available_at = planned_at")
    bench.send()

    assert ["plan", "plan"] == heard
    assert ["posted"] == [each.state for each in run.actions]


def test_two_hooks_both_hear(bench: Bench):
    heard: list[str] = []
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)

    @flow.on_complete
    def one(_event):
        heard.append("one")

    @flow.on_complete
    def two(_event):
        heard.append("two")

    flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.send()

    assert ["one", "two"] == sorted(heard)


def test_a_flow_without_hooks_plans_nothing(bench: Bench):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert ([], 0) == (run.actions, bench.rung.actions)


def test_a_hook_without_a_name_or_of_a_name_that_is_taken_is_refused(laptop: Bench):
    flow = laptop.flow()

    def tell(_event):
        pass

    flow.on_failed(tell)
    with pytest.raises(DeclarationError, match="already has a hook on_failed named tell"):
        flow.on_failed(tell)
    with pytest.raises(DeclarationError, match="a named function"):
        flow.on_failed(lambda event: None)
