"""Where the output of a phase lies: said in its body, recorded with its completion, shown with its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runclaim import InputError, RunState, Skip
from runclaim.flows.body.output_ref import MAX_BYTES, check_output_ref

if TYPE_CHECKING:
    from tests.harness.bench import Bench

PLACE = "s3://reports/acme/pr-7.json"

REFUSED = {
    "no text": 7,
    "nothing": "",
    "no scheme": "reports/pr-7.json",
    "only a scheme": "s3:",
    "white space": "s3://reports/pr 7.json",
    "a new line": "s3://reports/\n",
    "a control character": "s3://reports/\x1b[2J",
    "a sign that turns the direction": "s3://reports/\u202egpj",
    "a lone surrogate": "s3://reports/\ud800",
    "too long": "s3://" + "a" * MAX_BYTES,
    "too long in UTF-8": "s3://" + "ä" * (MAX_BYTES // 2),
    "a password": "https://deploy:hunter2hunter2@reports.example/pr-7",
    "a token": "https://reports.example/?token=ghp_" + "a1B2c3D4e5" * 4,
}


@pytest.mark.parametrize("url", REFUSED.values(), ids=REFUSED)
def test_what_is_no_url_that_can_be_kept_is_refused(url):
    with pytest.raises(InputError, match=r"^output_ref") as refused:
        check_output_ref(url)
    assert "hunter2" not in str(refused.value)
    assert "ghp_" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        PLACE,
        "file:///var/log/run.log",
        "urn:uuid:f81d4fae",
        "https://ci.example/7#L12",
        "s3:" + "a" * (MAX_BYTES - 3),
    ],
)
def test_a_url_of_any_scheme_is_taken_as_it_is(url):
    assert url == check_output_ref(url)


def test_it_is_recorded_with_the_completion_and_shown_with_the_run(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        ctx.output_ref("s3://reports/draft.json")
        ctx.output_ref(PLACE)

    flow.phase(name="deliver")(lambda ctx: ctx.output_ref("file:///var/log/deliver.log"))
    flow.phase(name="close")(lambda ctx: "nothing to point to")
    run = flow.enqueue(repo="acme/app", number=7)
    before = run.output_ref
    bench.finish(flow, run)

    assert RunState.SUCCEEDED is run.state
    assert before is None
    assert {"plan": PLACE, "deliver": "file:///var/log/deliver.log"} == run.output_refs
    assert "file:///var/log/deliver.log" == run.output_ref
    assert {"plan": None, "deliver": None, "close": "nothing to point to"} == run.results


def test_an_attempt_that_fails_has_pointed_to_nothing(bench: Bench):
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def plan(ctx):
        ctx.output_ref(PLACE)
        raise RuntimeError("too late")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert (RunState.FAILED, None, {}) == (run.state, run.output_ref, run.output_refs)


def test_a_phase_with_nothing_to_do_may_point_to_what_was_there(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def plan(ctx):
        ctx.output_ref(PLACE)
        raise Skip("it was there")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert (RunState.SUCCEEDED, PLACE) == (run.state, run.output_ref)


def test_a_wrong_one_fails_the_attempt_for_good_with_its_reason(bench: Bench):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: ctx.output_ref("reports/pr-7.json"))
    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert RunState.FAILED is run.state
    assert "write its scheme first" in run.view.error["message"]


def test_a_rerun_begins_without_one(bench: Bench):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: ctx.output_ref(PLACE))
    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)

    assert (PLACE, None) == (run.output_ref, run.rerun().output_ref)
