"""Signals as users see them: a phase that waits, whoever sends what it waits for, and what its body reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from runclaim import Context, InputError, Runclaim, RunState, testing
from runclaim.errors import DeclarationError, KeyNotFound, RunNotFound, StateConflict
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.keys import MAX_JSON_BYTES, uuid7
from tests.harness.bench import PullRequest
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim import Run
    from runclaim.flows.flow import Flow
    from tests.harness.bench import Bench

PULL = PullRequest("acme/app", 7)
KEY = "acme/app:pr-7"


@pytest.fixture
def heard() -> list[Any]:
    """What the bodies read."""
    return []


@pytest.fixture
def release(bench: Bench, heard: list[Any]) -> Flow[PullRequest]:
    flow = bench.flow("release")

    @flow.phase
    def plan(ctx: Context[PullRequest]) -> str:
        return ctx.input.head

    @flow.phase(on="approved")
    def deliver(ctx: Context[PullRequest]) -> None:
        heard.append(ctx.signal)

    @flow.phase(on="approved")
    def tell(ctx: Context[PullRequest]) -> None:
        heard.append(ctx.signal_of("approved"))

    return flow


@pytest.fixture
def waiting(bench: Bench, release: Flow[PullRequest]) -> Run:
    """A run that has planned and waits."""
    run = release.enqueue(PULL)
    bench.finish(release, run)
    return run


def test_a_run_waits_for_its_signal_and_goes_on_by_it(bench: Bench, release: Flow, waiting: Run, heard: list[Any]):
    """
    INVARIANT: a phase with `on` starts only once its run has received that signal.

    Breaks if the runner does not hand over what the next phase waits for.
    """
    assert (RunState.WAITING, "approved") == (waiting.state, waiting.view.waits_for)
    assert {"plan": "complete", "deliver": "pending", "tell": "pending"} == waiting.phases

    assert waiting is waiting.signal("approved", {"by": "ann"})
    assert [(waiting.id, "deliver")] == [(due.run_id, due.phase) for due in bench.rung]
    bench.finish(release, waiting)
    assert (RunState.SUCCEEDED, [{"by": "ann"}] * 2) == (waiting.state, heard)


def test_nothing_is_published_or_dispatched_while_a_run_waits(bench: Bench, release: Flow, waiting: Run):
    flows = {release.name: release}
    sent = dispatch_due(bench.database, bench.rung, flows=flows, spacing=timedelta(0))

    assert (0, []) == (sent, bench.rung)


def test_a_signal_before_the_run_waits_is_kept_for_its_phase(bench: Bench, release: Flow, heard: list[Any]):
    run = release.enqueue(PULL).signal("approved", "early")
    assert 1 == len(bench.rung)
    bench.finish(release, run)

    assert (RunState.SUCCEEDED, ["early", "early"]) == (run.state, heard)


def test_a_run_can_wait_before_its_first_phase(bench: Bench, heard: list[Any]):
    flow = bench.flow("late")
    flow.phase(on="opened")(lambda_named("plan", lambda ctx: heard.append(ctx.signal)))
    run = flow.enqueue(PULL)

    assert (RunState.WAITING, []) == (run.state, bench.rung)
    run.signal("opened", 1)
    bench.finish(flow, run)
    assert (RunState.SUCCEEDED, [1]) == (run.state, heard)
    assert "run.started" in bench.events(run)


def lambda_named(name: str, body: Any) -> Any:
    body.__name__ = name
    return body


def test_a_signal_whose_message_is_lost_is_dispatched(bench: Bench, release: Flow, waiting: Run):
    bench.rung.silent = True
    waiting.signal("approved")
    bench.rung.silent = False

    assert [] == bench.rung
    bench.finish(release, waiting)
    assert RunState.SUCCEEDED is waiting.state


def test_the_first_payload_of_a_name_is_what_the_phase_reads(bench: Bench, release: Flow, waiting: Run, heard: list):
    for number, who in enumerate(["ann", "bob", "cy"]):
        waiting.signal("approved", who, id=str(number))
    bench.finish(release, waiting)

    assert (["ann", "ann"], 3) == (heard, bench.count("runclaim_signals"))


def test_a_signal_that_is_sent_16_times_at_once_starts_one_body(bench: Bench, release: Flow, waiting: Run, heard: list):
    """INVARIANT: idempotent by id. Breaks if a signal that is there queues the run again."""
    together(16, lambda _: waiting.signal("approved", "ann", id="review-1"))

    assert 1 == bench.count("runclaim_signals")
    bench.finish(release, waiting)
    assert (["ann", "ann"], 1) == (heard, bench.events(waiting).count("run.signaled"))


def test_the_same_signal_after_the_end_is_no_error_and_another_is(bench: Bench, release: Flow, waiting: Run):
    waiting.signal("approved", id="1")
    bench.finish(release, waiting)
    waiting.signal("approved", id="1")

    with pytest.raises(StateConflict, match=r"cannot signal .* it is succeeded"):
        waiting.signal("approved", id="2")


def test_a_run_that_never_was_is_not_signaled(bench: Bench, release: Flow):
    with pytest.raises(RunNotFound):
        release.get(uuid7()).signal("approved")


@pytest.mark.parametrize(
    "name, payload, signal_id, field",
    [
        ("two words", None, None, "signal"),
        ("a|b", None, None, "signal"),
        ("", None, None, "signal"),
        (7, None, None, "signal"),
        ("approved", object(), None, "payload"),
        ("approved", {"by": "a\x00"}, None, "payload.by"),
        ("approved", "x" * MAX_JSON_BYTES, None, "payload"),
        ("approved", None, "", "id"),
        ("approved", None, "i" * 513, "id"),
        ("approved", None, 7, "id"),
    ],
)
def test_what_cannot_be_recorded_is_refused_with_its_field(
    bench: Bench, release: Flow, waiting: Run, name: Any, payload: Any, signal_id: Any, field: str
):
    with pytest.raises(InputError) as error:
        waiting.signal(name, payload, id=signal_id)

    assert (field, RunState.WAITING) == (error.value.field, waiting.state)
    assert 0 == bench.count("runclaim_signals")


def test_a_phase_that_waits_for_nothing_has_no_signal(bench: Bench):
    flow = bench.flow()
    told: list[str] = []

    @flow.phase
    def plan(ctx: Context[PullRequest]) -> None:
        for read in (lambda: ctx.signal, lambda: ctx.signal_of("merged")):
            try:
                read()
            except KeyError as error:
                told.append(str(error))

    run = flow.enqueue(PULL)
    bench.finish(flow, run)

    assert RunState.SUCCEEDED is run.state
    assert [True, True] == ["does not wait for a signal" in told[0], "received no signal merged" in told[1]]


def test_a_body_under_test_is_given_signals(release: Flow, heard: list[Any]):
    ctx = testing.context(release, PULL, phase="deliver", signals={"approved": {"by": "ann"}})
    release.phases["deliver"](ctx)

    assert [{"by": "ann"}] == heard


def test_a_blocked_phase_is_resumed_without_another_signal(bench: Bench, heard: list[Any]):
    from runclaim import Blocked

    flow = bench.flow("stopping")

    @flow.phase(on="approved")
    def deliver(ctx: Context[PullRequest]) -> None:
        heard.append(ctx.signal)
        if len(heard) == 1:
            raise Blocked("look")

    run = flow.enqueue(PULL).signal("approved", "ann")
    bench.finish(flow, run)
    assert RunState.BLOCKED is run.state
    run.resume()
    bench.finish(flow, run)

    assert (RunState.SUCCEEDED, ["ann", "ann"]) == (run.state, heard)


def test_a_waiting_run_is_canceled_at_once_and_then_hears_nothing(waiting: Run):
    assert RunState.CANCELED is waiting.cancel()
    with pytest.raises(StateConflict):
        waiting.signal("approved")


def test_a_rerun_waits_anew_and_is_the_run_that_its_key_finds(bench: Bench):
    flow = bench.flow("again")
    flow.phase(on="approved", name="plan")(lambda ctx: ctx.signal)
    first = flow.enqueue(PULL).signal("approved", "ann")
    bench.finish(flow, first)
    second = flow.using(rerun=True).enqueue(PULL)
    found = flow.find(KEY)

    assert found is not None
    assert (RunState.WAITING, second.id, []) == (second.state, found.id, bench.rung)
    second.signal("approved", "bob")
    bench.finish(flow, second)
    assert ("ann", "bob") == (first.result, second.result)


@pytest.mark.parametrize("on", ["two words", "", 7, "a|b"])
def test_a_phase_waits_for_a_plain_name(laptop: Bench, on: Any):
    with pytest.raises(DeclarationError):
        laptop.flow().phase(on=on)(lambda_named("plan", lambda ctx: None))


def test_a_release_that_does_not_know_the_next_phase_lets_nobody_pass_without_the_signal(bench: Bench, release: Flow):
    """
    INVARIANT: the signal is needed whatever queued the run.

    Breaks if claim trusts the state that a worker of an older release has left.
    """
    run = release.enqueue(PULL)
    older = bench.flow("release")
    older.phase(lambda_named("plan", lambda ctx: "planned"))
    bench.deliver(older)
    assert (RunState.QUEUED, "deliver") == (run.state, run.view.phase)
    bench.deliver(release)
    bench.execute("UPDATE runclaim_runs SET dispatch_due_at = available_at")
    bench.finish(release, run)
    assert (RunState.QUEUED, {"deliver": "pending"}) == (run.state, {"deliver": run.phases["deliver"]})

    run.signal("approved")
    bench.finish(release, run)
    assert RunState.SUCCEEDED is run.state


# --- by key ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    left: str
    right: str


@pytest.mark.parametrize(
    "template", ["{repo}:pr-{number}", "{repo}{number}", "{{x}}{repo} {number}.", "{number}/{repo}/{number}"]
)
def test_a_run_is_found_by_the_text_of_its_key(bench: Bench, template: str):
    flow = bench.flow(key=template)
    flow.phase(lambda_named("plan", lambda ctx: None))
    run = flow.enqueue(PULL)
    found = flow.find(run.view.key)

    assert found is not None
    assert (run.id, None, None) == (found.id, flow.find(run.view.key + "0"), flow.find("another"))


def test_a_run_is_found_by_a_key_that_a_function_made(bench: Bench):
    flow = bench.flow(key=lambda pull: f"no-{pull.number}")
    flow.phase(lambda_named("plan", lambda ctx: None))
    run = flow.enqueue(PULL)
    found = flow.find("no-7")

    assert found is not None
    assert run.id == found.id


def pairs(bench: Bench) -> Flow[Pair]:
    flow = bench.flow("pairs", Pair, key="{left}:{right}")
    flow.phase(on="approved")(lambda_named("plan", lambda ctx: None))
    return flow


def test_two_runs_whose_keys_read_the_same_are_not_mixed_up(bench: Bench):
    """
    INVARIANT: a signal never reaches another run than the one that was meant.

    Breaks if the first reading that finds a run is taken.
    """
    flow = pairs(bench)
    one = flow.enqueue(Pair("a:b", "c"))
    assert flow.find("a:b:c").id == one.id
    other = flow.enqueue(Pair("a", "b:c"))

    with pytest.raises(InputError, match="key: names several runs of pairs") as error:
        flow.find("a:b:c")
    assert one.id in str(error.value)
    assert other.id in str(error.value)


def test_a_key_that_can_be_read_in_too_many_ways_asks_for_the_id(bench: Bench):
    flow = pairs(bench)

    assert flow.find(":" * 64) is None
    with pytest.raises(InputError, match="key: can be read in more than 64 ways"):
        flow.find(":" * 65)


@pytest.mark.parametrize("key", ["", "a\x00b", "x" * 513])
def test_a_key_that_no_run_can_have_is_refused(laptop: Bench, key: str):
    with pytest.raises(InputError, match="key"):
        pairs(laptop).find(key)


def test_a_key_of_many_fields_is_read_in_no_time(laptop: Bench):
    """A text that almost fits has more wrong readings than there are atoms; none of them is tried twice."""

    @dataclass(frozen=True)
    class Many:
        a: str
        b: str
        c: str
        d: str
        e: str
        f: str

    flow = laptop.flow("many", Many, key="{a}:{b}:{c}:{d}:{e}!{f}")
    flow.phase(lambda_named("plan", lambda ctx: None))

    assert flow.find(":" * 500) is None


def test_a_purged_run_is_not_found(bench: Bench):
    flow = pairs(bench)
    flow.enqueue(Pair("a", "b"))
    bench.execute("DELETE FROM runclaim_runs")

    assert flow.find("a:b") is None


class Office:
    """An application with two flows: one waits for `approved`, both for `merged`. Its broker is in memory."""

    def __init__(self, url: str) -> None:
        self.app = Celery("office", broker="memory://", set_as_current=False)
        self.runs = Runclaim(self.app, database_url=url)
        self.review = self._flow("review", "approved", "merged")
        self.release = self._flow("release", "merged")

    def _flow(self, name: str, *signals: str) -> Flow[PullRequest]:
        flow = self.runs.flow(name, PullRequest, key="{repo}:pr-{number}")
        for each in signals:
            flow.phase(on=each)(lambda_named(each, lambda ctx: None))
        return flow


@pytest.fixture
def office(ledger_url: str) -> Iterator[Office]:
    made = Office(ledger_url)
    yield made
    made.runs.ledger.database.close()
    made.app.close()


def test_an_application_signals_the_run_of_a_key(office: Office):
    run = office.review.enqueue(PULL)
    told = office.runs.signal(KEY, "approved", {"by": "ann"}, id="1")

    assert (run.id, RunState.QUEUED) == (told.id, run.state)


def test_the_flow_is_named_when_several_or_none_wait_for_the_signal(office: Office):
    run = office.release.enqueue(PULL)
    for name, said in (("merged", "review and release wait"), ("closed", "no flow waits")):
        with pytest.raises(InputError, match=f"flow: {said} for the signal {name}"):
            office.runs.signal(KEY, name)
    with pytest.raises(InputError, match="flow: there is no flow relase; this application has review, release"):
        office.runs.signal(KEY, "merged", flow="relase")

    assert [run.id] * 2 == [
        office.runs.signal(KEY, name, flow=flow).id
        for name, flow in [("merged", "release"), ("closed", office.release)]
    ]


def test_a_signal_for_a_key_that_has_no_run_says_so(office: Office):
    with pytest.raises(KeyNotFound, match="review has no run 'acme/app:pr-8'") as error:
        office.runs.signal("acme/app:pr-8", "approved")

    assert ("review", "acme/app:pr-8") == (error.value.flow, error.value.key)
