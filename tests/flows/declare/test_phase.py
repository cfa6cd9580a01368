"""Mistakes in a phase, and in how a flow is used, are refused where they are made, with words that say what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from runclaim import Backoff, Context, Runclaim
from runclaim.errors import DeclarationError
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.flow import Flow


@pytest.fixture
def review() -> Flow[PullRequest]:
    runs = Runclaim(Celery("declared", broker="memory://", set_as_current=False))
    return runs.flow("review", PullRequest, key="{repo}:pr-{number}")


class Custom:
    pass


def plan(ctx: Context[PullRequest]) -> list[str]:
    return [ctx.input.base]


MISTAKEN_OPTIONS = {
    "an option that does not exist": (
        {"max_attempt": 3},
        (
            "a phase has no option max_attempt; the options are name, max_attempts, max_losses, backoff, lease,"
            " max_duration, queue, on, idempotent"
        ),
    ),
    "no attempt at all": (
        {"max_attempts": 0},
        "max_attempts must be a number from 1 (the first start counts) to 1000, not 0",
    ),
    "attempts as text": (
        {"max_attempts": "3"},
        "max_attempts must be a number from 1 (the first start counts) to 1000, not '3'",
    ),
    "no loss at all": ({"max_losses": 0}, "max_losses must be a number from 1 (the first start counts) to 1000, not 0"),
    "a lease in seconds": ({"lease": 60}, "lease must be a timedelta greater than zero, not 60"),
    "a lease of nothing": (
        {"lease": timedelta(0)},
        "lease must be a timedelta greater than zero, not datetime.timedelta(0)",
    ),
    "a duration in seconds": ({"max_duration": 5}, "max_duration must be a timedelta greater than zero, not 5"),
    "a backoff in seconds": (
        {"backoff": 5},
        "backoff must be a Backoff(first=…, factor=…, ceiling=…), not 5",
    ),
    "a queue that no database takes": ({"queue": "a\x00"}, "queue must be the name of a Celery queue, not 'a\\x00'"),
    "a queue that is none": ({"queue": ["a"]}, "queue must be the name of a Celery queue, not ['a']"),
    "a name that is none": (
        {"name": "1st"},
        "phase '1st': use letters, digits and _ . - (a letter first, at most 100)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKEN_OPTIONS)
def test_a_mistaken_option_is_refused_with_words_that_help(review, mistake):
    options, expected = MISTAKEN_OPTIONS[mistake]

    with pytest.raises(DeclarationError) as refused:
        review.phase(**options)(plan)
    assert expected == str(refused.value)


async def awaits(ctx):
    """Celery would get a coroutine for a result."""


def yields(ctx):
    yield 1


def takes_nothing():
    """Nothing to work on."""


def returns_custom(ctx) -> list[Custom]:
    return []


MISTAKEN_BODIES = {
    "an async function": (
        awaits,
        "phase review.awaits is async, but Celery calls plain functions; write def, and await inside asyncio.run",
    ),
    "a generator": (yields, "phase review.yields yields, so it has no result; return a list"),
    "a function without a context": (
        takes_nothing,
        "phase review.takes_nothing must take one argument, its context: `def takes_nothing(ctx)`",
    ),
    "a result without a JSON form": (
        returns_custom,
        (
            "the result of review.returns_custom: Custom has no JSON form; use text, numbers, lists, dicts, dates,"
            " dataclasses or pydantic models, defined where the module can see them at run time"
        ),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKEN_BODIES)
def test_a_mistaken_body_is_refused_with_words_that_help(review, mistake):
    body, expected = MISTAKEN_BODIES[mistake]

    with pytest.raises(DeclarationError) as refused:
        review.phase(body)
    assert expected == str(refused.value)


def test_a_lambda_needs_a_name(review):
    with pytest.raises(DeclarationError, match=r"^a phase needs a name: write @flow.phase above `def plan"):
        review.phase(lambda ctx: 1)
    assert "plan" == review.phase(name="plan")(lambda ctx: 1).name


def test_a_second_phase_of_a_name_is_refused(review):
    review.phase(plan)

    with pytest.raises(DeclarationError) as refused:
        review.phase(plan)
    assert "flow review already has a phase plan; give the second another name" == str(refused.value)


def test_a_flow_without_phases_enqueues_nothing(review):
    with pytest.raises(DeclarationError) as refused:
        review.enqueue(repo="acme/app", number=7)
    assert "flow review has no phases: declare one with @review.phase" == str(refused.value)


MISTAKEN_USES = {
    "a delay in seconds": ({"delay": 5}, "delay must be a timedelta from zero to 3650 days, not 5"),
    "a delay backwards": (
        {"delay": timedelta(seconds=-1)},
        "delay must be a timedelta from zero to 3650 days, not datetime.timedelta(days=-1, seconds=86399)",
    ),
    "a delay beyond the calendar": (
        {"delay": timedelta.max},
        f"delay must be a timedelta from zero to 3650 days, not {timedelta.max!r}",
    ),
    "a priority beyond Celery's": ({"priority": 10}, "priority must be a number from 0 to 9, not 10"),
    "a priority below Celery's": ({"priority": -1}, "priority must be a number from 0 to 9, not -1"),
    "a priority as text": ({"priority": "high"}, "priority must be a number from 0 to 9, not 'high'"),
    "a project that is no name": (
        {"project": "a b"},
        "project 'a b': use letters, digits and _ . - (a letter first, at most 100)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKEN_USES)
def test_a_mistaken_use_is_refused_with_words_that_help(review, mistake):
    review.phase(plan)
    options, expected = MISTAKEN_USES[mistake]

    with pytest.raises(DeclarationError) as refused:
        review.using(**options)
    assert expected == str(refused.value)


def test_every_option_of_a_phase_is_kept(review):
    backoff = Backoff(first=timedelta(seconds=1))
    phase = review.phase(
        name="think",
        max_attempts=3,
        max_losses=2,
        backoff=backoff,
        lease=timedelta(minutes=2),
        max_duration=timedelta(minutes=20),
        queue="slow",
    )(plan)

    kept = phase.options
    assert ("think", "review.think", 3, 2, "slow") == (
        phase.name,
        phase.task_name,
        kept.max_attempts,
        phase.max_losses,
        kept.queue,
    )
    assert (backoff, timedelta(minutes=2), timedelta(minutes=20)) == (kept.backoff, kept.lease, kept.max_duration)


def test_phases_keep_the_order_of_their_declarations(review):
    for name in ("third", "first", "second"):
        review.phase(name=name)(plan)

    assert ["third", "first", "second"] == list(review.phases)
    assert "<flow review: third → first → second>" == repr(review)


def test_a_declared_phase_is_still_a_function_of_its_context(review):
    phase: Phase[Any, Any] = review.phase(plan)
    context = type("SomeContext", (), {"input": PullRequest("acme/app", 7, base="a1")})()

    assert ["a1"] == phase(context)
