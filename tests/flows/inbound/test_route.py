"""Routing: an event finds or makes its run, starts the phase that it calls for, and starts nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Context, InputError, KeyConflict, RunState
from runclaim.flows.inbound.route import OutsideEvent
from tests.harness.bench import Bench, PullRequest
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow

ISSUE = PullRequest("acme/app", 7)


class Triage:
    """A flow whose second and third phases are called for by events, and what their bodies did."""

    def __init__(self, bench: Bench) -> None:
        self.did: list[tuple[str, Any]] = []
        self.flow: Flow[PullRequest] = bench.flow("triage", subject="{repo}")
        self.flow.phase(self._body("read"))
        self.fix = self.flow.phase(on="labeled")(self._body("fix"))
        self.flow.phase(on="merged")(self._body("close"))

    def _body(self, name: str) -> Any:
        def body(ctx: Context[PullRequest]) -> None:
            self.did.append((name, None if name == "read" else ctx.signal))

        body.__name__ = name
        return body


@pytest.fixture
def triage(bench: Bench) -> Triage:
    return Triage(bench)


def test_an_event_for_no_phase_makes_the_run_once_and_starts_the_first(bench: Bench, triage: Triage):
    first, second = (triage.flow.route(OutsideEvent(ISSUE)) for _ in range(2))

    assert [True, False] == [first.started, second.started]
    assert (first.run.id, True, False) == (second.run.id, first.run.created, second.run.created)
    assert 1 == len(bench.rung)
    bench.finish(triage.flow, first.run)
    assert [("read", None)] == triage.did


def test_an_event_starts_the_phase_that_waits_for_it(bench: Bench, triage: Triage):
    run = triage.flow.route(OutsideEvent({"repo": "acme/app", "number": 7})).run
    bench.finish(triage.flow, run)
    routed = triage.flow.route(OutsideEvent(ISSUE, phase=triage.fix, id="label-1", payload="bug"))

    assert (run.id, True, False) == (routed.run.id, routed.started, routed.run.created)
    assert [(run.id, "fix")] == [(due.run_id, due.phase) for due in bench.rung]
    bench.finish(triage.flow, run)
    assert ([("read", None), ("fix", "bug")], RunState.WAITING) == (triage.did, run.state)


def test_an_event_that_comes_before_everything_makes_the_run_and_is_kept(bench: Bench, triage: Triage):
    routed = triage.flow.route(OutsideEvent(ISSUE, phase="close", id="1", payload="merged"))
    assert (True, False) == (routed.run.created, routed.started)
    bench.finish(triage.flow, routed.run)
    assert (RunState.WAITING, "labeled") == (routed.run.state, routed.run.view.waits_for)
    triage.flow.route(OutsideEvent(ISSUE, phase="fix"))
    bench.finish(triage.flow, routed.run)

    assert (["read", "fix", "close"], RunState.SUCCEEDED) == ([name for name, _ in triage.did], routed.run.state)
    assert "merged" == triage.did[-1][1]


@pytest.mark.parametrize("state", ["active", "complete", "blocked", "succeeded", "canceled"])
def test_an_event_for_a_phase_that_has_started_does_nothing(bench: Bench, triage: Triage, state: str):
    """
    INVARIANT: the state of an existing run's phases is never reset.

    Breaks if an event is recorded, or a run queued again, for a phase that had its signal.
    """
    event = OutsideEvent(ISSUE, phase="fix", payload="bug")
    run = triage.flow.route(event).run
    if state == "active":
        bench.deliver(triage.flow, inline=lambda before, after: False)
        bench.execute(
            "UPDATE runclaim_runs SET state = 'running', owner = 'o', attempts = 1,"
            " lease_expires_at = available_at, deadline_at = available_at"
        )
    elif state == "canceled":
        run.cancel()
    else:
        bench.finish(triage.flow, run)
    if state == "succeeded":
        triage.flow.route(OutsideEvent(ISSUE, phase="close"))
        bench.finish(triage.flow, run)
    if state == "blocked":
        bench.execute("UPDATE runclaim_runs SET state = 'blocked'")
    bench.rung.clear()
    before, signals, events = run.view, bench.count("runclaim_signals"), bench.events(run)
    again = [
        triage.flow.route(each) for each in (event, OutsideEvent(ISSUE, phase="fix", id="another"), OutsideEvent(ISSUE))
    ]

    assert [(run.id, False)] * 3 == [(routed.run.id, routed.started) for routed in again]
    assert (before, signals, events) == (run.view, bench.count("runclaim_signals"), bench.events(run))
    assert [] == bench.rung


@pytest.mark.parametrize("waits", [False, True], ids=["the run is new", "the run waits"])
def test_one_event_routed_by_16_at_once_is_one_run_one_body_and_one_completion(
    bench: Bench, triage: Triage, waits: bool
):
    """
    INVARIANT: calling route twice with one event starts one body.

    Breaks if route looks for the run or its phase before it writes.
    """
    if waits:
        bench.finish(triage.flow, triage.flow.route(OutsideEvent(ISSUE)).run)
    routed = together(16, lambda _: triage.flow.route(OutsideEvent(ISSUE, phase="fix", id="label-1", payload="bug")))
    run = routed[0].run
    bench.finish(triage.flow, run)

    assert {run.id} == {each.run.id for each in routed}
    assert int(waits) == sum(each.started for each in routed)
    assert [("read", None), ("fix", "bug")] == triage.did
    assert (1, 2) == (bench.count("runclaim_signals"), bench.events(run).count("phase.completed"))


def test_a_run_that_waits_before_its_first_phase_is_made_and_started_by_one_event(bench: Bench):
    flow, did = bench.flow("opened"), []
    flow.phase(on="opened", name="read")(lambda ctx: did.append(ctx.signal))
    routed = flow.route(OutsideEvent(ISSUE, payload=1))

    assert (True, True, 1) == (routed.run.created, routed.started, len(bench.rung))
    bench.finish(flow, routed.run)
    assert ([1], RunState.SUCCEEDED) == (did, routed.run.state)


def test_an_event_for_one_of_two_phases_that_wait_for_a_name_says_which_it_started(bench: Bench):
    flow = bench.flow("twice")
    flow.phase(on="labeled", name="one")(lambda ctx: None)
    flow.phase(on="labeled", name="two")(lambda ctx: None)
    routed = flow.route(OutsideEvent(ISSUE, phase="two"))

    assert (False, RunState.QUEUED) == (routed.started, routed.run.state)


def test_an_event_for_a_phase_that_waits_for_nothing_leaves_it_to_its_turn(bench: Bench):
    flow, did = bench.flow("plain"), []
    flow.phase(name="one")(lambda ctx: did.append("one"))
    flow.phase(name="two")(lambda ctx: did.append("two"))
    routed = flow.route(OutsideEvent(ISSUE, phase="two"))
    bench.finish(flow, routed.run)

    assert (False, ["one", "two"]) == (routed.started, did)


@pytest.mark.parametrize("phase", ["deploy", "", "another's"])
def test_an_unknown_phase_is_refused_and_nothing_is_written(bench: Bench, triage: Triage, phase: Any):
    if phase == "another's":
        phase = Triage(bench).fix
    with pytest.raises(InputError, match=r"phase: .* is not a phase of triage; it has read, fix, close"):
        triage.flow.route(OutsideEvent(ISSUE, phase=phase))

    assert (0, 0) == (bench.count("runclaim_runs"), bench.count("runclaim_run_keys"))


def test_an_event_that_cannot_be_recorded_writes_nothing(bench: Bench, triage: Triage):
    for event in (
        OutsideEvent({"repo": "acme/app"}),
        OutsideEvent(ISSUE, phase="fix", payload=object()),
        OutsideEvent(ISSUE, phase="fix", id="\n"),
    ):
        with pytest.raises(InputError):
            triage.flow.route(event)

    assert (0, 0) == (bench.count("runclaim_runs"), bench.count("runclaim_signals"))


def test_an_event_whose_key_has_another_input_is_a_conflict_and_sends_nothing(bench: Bench, triage: Triage):
    triage.flow.route(OutsideEvent(ISSUE))
    with pytest.raises(KeyConflict):
        triage.flow.route(OutsideEvent(PullRequest("acme/app", 7, base="other"), phase="fix"))

    assert 0 == bench.count("runclaim_signals")


def test_what_is_lost_of_a_route_is_dispatched(bench: Bench, triage: Triage):
    run = triage.flow.route(OutsideEvent(ISSUE)).run
    bench.finish(triage.flow, run)
    bench.rung.silent = True
    triage.flow.route(OutsideEvent(ISSUE, phase="fix", payload="bug"))
    bench.rung.silent = False
    bench.finish(triage.flow, run)

    assert [("read", None), ("fix", "bug")] == triage.did


def test_one_event_routed_twice_is_one_run_one_body_one_hook_and_one_comment(bench: Bench):
    """
    INVARIANT: a delivery that comes twice, or at once from many, changes nothing the second time.

    Breaks if a route looks before it writes, or an action or a hook has another name at each attempt.
    """
    did: list[str] = []
    flow = bench.flow("triage", subject="{repo}")

    @bench.action()
    def comment(_payload, key):
        did.append(f"comment {key.partition(':')[2]}")

    @flow.phase(on="labeled")
    def fix(ctx):
        did.append("body")
        ctx.plan_action("comment", {"body": ctx.signal})

    @flow.on_complete
    def tell(_event):
        did.append("hook")

    event = OutsideEvent(ISSUE, phase=fix, id="label-1", payload="bug")
    routed = [*together(16, lambda _: flow.route(event)), flow.route(event)]
    messages = list(bench.rung)
    for message in [*messages, *messages]:
        bench.deliver(flow, message)
    bench.send()
    routed.append(flow.route(event))
    bench.finish(flow, routed[-1].run)
    bench.send()

    assert 1 == len({each.run.id for each in routed})
    assert 1 == [each.started for each in routed].count(True)
    assert ["body", "comment fix:0", "hook"] == sorted(did)
