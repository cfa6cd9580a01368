"""Enqueuing from outside: what the registered schema takes and refuses, and that it is the run of the application."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import NotRequired, TypedDict

import pytest

from runclaim.errors import InputError
from runclaim.flows.client.new_run import Options, options_of_door
from runclaim.flows.client.run_source import RunSource
from runclaim.flows.declare.registered_inputs import InputRefused


@dataclass(frozen=True)
class Size:
    width: float = 2.0


@dataclass(frozen=True)
class Order:
    shop: str
    number: int
    rate: float = 1.0
    labels: list[str] = field(default_factory=list)
    size: Size | None = None


def declared(bench, **how):
    flow = bench.flow("order", Order, **({"key": "{shop}:{number}", "subject": "{shop}"} | how))

    @flow.phase(queue="slow", max_attempts=2)
    def reserve(ctx):
        """Nothing."""

    return flow


def outside(bench, flow, given, **how):
    options = options_of_door(delay=how.pop("delay", None), priority=None)
    return bench.outside(flow).new_run(given, options, project="default", **how)


@pytest.mark.parametrize(
    "given",
    [
        {"shop": "a", "number": 7},
        {"shop": "a", "number": 7, "rate": 3, "labels": ["x"]},
        {"shop": "a:b", "number": 7, "size": {"width": 2.0}},
    ],
)
def test_an_input_is_the_same_run_from_inside_and_from_outside(laptop, given):
    """
    INVARIANT: two doors do not make two runs of one thing, and do not call one input two.

    Breaks if a default, or a whole number for a float, is not what the application would make of it.
    """
    flow = declared(laptop)
    inside, found = flow.using().new_run(given), outside(laptop, flow, given)

    assert inside.input == found.input
    assert (inside.key, inside.fingerprint, inside.subject) == (found.key, found.fingerprint, found.subject)
    assert (inside.phases, inside.queue, inside.max_attempts) == (found.phases, found.queue, found.max_attempts)
    assert (inside.keep_key, inside.dispatch_after) == (found.keep_key, found.dispatch_after)


@pytest.mark.parametrize(
    "given,pointer",
    [
        ({"shop": "a"}, ""),
        ({"shop": "a", "number": "7"}, "/number"),
        ({"shop": "a", "number": 7, "labels": ["x", 3]}, "/labels/1"),
        ({"shop": "a", "number": 7, "colour": "red"}, ""),
        ({"shop": "a", "number": 7, "size": {"width": "wide"}}, "/size"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_the_place(laptop, given, pointer):
    with pytest.raises(InputRefused) as refused:
        outside(laptop, declared(laptop), given)
    assert [pointer] == [place for place, _ in refused.value.problems]


def test_an_input_that_is_too_large_or_no_text_for_a_database_is_refused(laptop):
    flow = declared(laptop)

    with pytest.raises(InputError, match="at most 262,144 fit"):
        outside(laptop, flow, {"shop": "a", "number": 1, "labels": ["x" * 300_000]})
    with pytest.raises(InputError, match="NUL"):
        outside(laptop, flow, {"shop": "a", "number": 1, "labels": ["\0"]})


def test_a_key_and_a_subject_are_given_exactly_where_the_application_has_a_function(laptop):
    made = declared(laptop)
    given = {"shop": "a", "number": 7}
    asked = declared(laptop, key=lambda order: f"k{order.number}", subject=lambda order: order.shop)
    found = outside(laptop, asked, given, key="k7", subject="a")

    assert asked.key_of(Order(**given)) == found.key
    assert "a" == found.subject
    for flow, how in [
        (made, {"key": "k7"}),
        (made, {"subject": "a"}),
        (asked, {"key": "k7"}),
        (asked, {"subject": "a"}),
        (asked, {"key": "", "subject": "a"}),
    ]:
        with pytest.raises(InputError):
            outside(laptop, flow, given, **how)


def test_a_flow_without_a_subject_takes_none(laptop):
    flow = declared(laptop, subject=None)

    assert outside(laptop, flow, {"shop": "a", "number": 7}).subject is None
    with pytest.raises(InputError, match="not used by this flow: leave it out"):
        outside(laptop, flow, {"shop": "a", "number": 7}, subject="a")


@pytest.mark.parametrize("delay", [timedelta(seconds=-1), timedelta(days=4000)])
def test_a_delay_has_bounds(laptop, delay):
    with pytest.raises(InputError, match="delay"):
        outside(laptop, declared(laptop), {"shop": "a", "number": 7}, delay=delay)


def test_what_looks_like_a_secret_is_refused_here_too_unless_the_flow_allows_it(laptop):
    flow, given = declared(laptop), {"shop": "ghp_" + "a1B2" * 9, "number": 7}
    description = flow.described(laptop.config)
    allowing = RunSource.registered(
        replace(description, secrets=replace(description.secrets, allowed=True)), laptop.ledger
    )

    with pytest.raises(InputError, match="allow_secrets"):
        outside(laptop, flow, given)
    assert given["shop"] == allowing.new_run(given, Options(), project="default").input["shop"]


class Ticket(TypedDict):
    shop: str
    number: NotRequired[int]


@pytest.mark.parametrize("door", ["inside", "outside"])
def test_a_field_that_a_key_needs_and_that_is_left_out_is_missed_by_every_door(laptop, door):
    """
    INVARIANT: whatever the input lacks is said to be the input's fault, whichever door it comes in by.

    Breaks if a door reads a template anew for each input, and takes a field that this one lacks for an unknown one.
    """
    flow = laptop.flow("ticket", Ticket, key="{shop}:{number}")
    flow.phase(name="sell")(lambda ctx: None)
    source = RunSource.declared(flow, laptop.ledger) if door == "inside" else laptop.outside(flow)

    with pytest.raises(InputError, match="number: is missing"):
        source.new_run({"shop": "a"}, Options(), project="default")
    assert "a:7" == source.new_run({"shop": "a", "number": 7}, Options(), project="default").key.text


def test_a_run_whose_message_nobody_here_can_send_is_left_to_the_next_dispatch(laptop):
    flow = declared(laptop)
    given = {"shop": "a", "number": 7}
    inside = RunSource.declared(flow, laptop.ledger).new_run(given, Options(), project="default")
    outside = RunSource.registered(flow.described(laptop.config), laptop.ledger).new_run(
        given, Options(), project="default"
    )

    assert (laptop.config.dispatch_after, timedelta(0)) == (inside.dispatch_after, outside.dispatch_after)


def test_every_door_takes_a_key_that_it_is_told_only_where_it_is_the_inputs_own(laptop):
    flow = declared(laptop)
    source, given = RunSource.declared(flow, laptop.ledger), {"shop": "a", "number": 7}

    assert "a:7" == source.new_run(given, Options(), project="default", key="a:7", subject="a").key.text
    for told in ({"key": "a:8"}, {"subject": "b"}):
        with pytest.raises(InputError, match="computed by the application"):
            source.new_run(given, Options(), project="default", **told)
