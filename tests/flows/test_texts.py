"""Text that a database refuses: the same answer on both of them, wherever it comes from, and nothing written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Blocked, InputError, RunState, Skip
from runclaim.errors import RunNotFound
from runclaim.keys import MAX_JSON_BYTES, MAX_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.bench import Bench

BAD = ["a\x00b", "a\ud800b"]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "fields, field",
    [
        (lambda bad: {"repo": bad, "number": 1}, "input.repo"),
        (lambda bad: {"repo": "acme/app", "number": 1, "head": bad}, "input.head"),
        (lambda bad: {"repo": "acme/app", "number": 1, bad: 1}, "a"),
    ],
)
def test_an_input_is_refused_by_its_field(bench: Bench, fields: Callable[[str], dict[str, Any]], field: str, bad: str):
    flow = bench.flow(subject="{repo}")
    flow.phase(name="plan")(lambda ctx: None)
    with pytest.raises(InputError) as refused:
        flow.enqueue(**fields(bad))

    assert refused.value.field.startswith(field)
    assert 0 == bench.count("runclaim_runs")


@pytest.mark.parametrize("made", ["key", "subject"])
@pytest.mark.parametrize("bad", [*BAD, "a\nb", "", "a" * (MAX_KEY_BYTES + 1)])
def test_a_key_or_subject_that_a_function_makes_is_refused_by_its_name(bench: Bench, made: str, bad: str):
    flow = bench.flow(**{made: lambda _: bad})
    flow.phase(name="plan")(lambda ctx: None)
    with pytest.raises(InputError) as refused:
        flow.enqueue(repo="acme/app", number=1)

    assert made == refused.value.field
    assert 0 == bench.count("runclaim_runs")


@pytest.mark.parametrize("bad", [*BAD, "x" * MAX_JSON_BYTES])
def test_a_result_is_refused_by_its_phase_and_fails_the_run(bench: Bench, bad: str):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: bad)
    run = flow.enqueue(repo="acme/app", number=1)
    bench.deliver(flow)

    assert (RunState.FAILED, "InputError") == (run.state, run.view.error["type"])
    assert run.view.error["message"].startswith("the result of review.plan: ")
    assert {} == run.results


@pytest.mark.parametrize("bad", [*BAD, "a\nb", "a" * (MAX_KEY_BYTES + 1), "ghp_" + "Ab3" * 12])
def test_who_asks_is_told_in_printable_text(bench: Bench, bad: str):
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def plan(ctx) -> None:
        raise Blocked("a person") if ctx.input.number == 1 else ValueError("no")

    blocked, failed, queued = (flow.enqueue(repo="acme/app", number=number) for number in (1, 2, 3))
    for _ in range(2):
        bench.deliver(flow)
    before = [bench.events(run) for run in (blocked, failed, queued)]
    for ask in (blocked.resume, failed.retry, queued.cancel):
        with pytest.raises(InputError) as refused:
            ask(by=bad)
        assert ("by", False) == (refused.value.field, "ghp_A" in str(refused.value))

    assert before == [bench.events(run) for run in (blocked, failed, queued)]
    assert [RunState.BLOCKED, RunState.FAILED, RunState.QUEUED] == [each.state for each in (blocked, failed, queued)]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("end", [Blocked, ValueError, Skip])
def test_the_words_of_a_body_are_kept_without_it(bench: Bench, end: type[Exception], bad: str):
    """A body has run by then: what it says is written as well as it can be."""
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def plan(ctx) -> None:
        raise end(bad)

    run = flow.enqueue(repo="acme/app", number=1)
    bench.deliver(flow)

    expected = {Blocked: RunState.BLOCKED, ValueError: RunState.FAILED, Skip: RunState.SUCCEEDED}
    assert expected[end] is run.state


@pytest.mark.parametrize("bad", [*BAD, "", "no id", "0" * 36])
def test_a_run_by_an_id_that_cannot_be_one_is_not_found(bench: Bench, bad: str):
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    for ask in (flow.get(bad).cancel, flow.get(bad).retry, lambda: flow.get(bad).state, lambda: flow.get(bad).wait()):
        with pytest.raises(RunNotFound):
            ask()
