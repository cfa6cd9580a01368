"""Flows by name, for doors: with their application at hand, and without it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runclaim import InputError
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.messages.no_broker import NoBroker
from runclaim.service.errors import UnknownFlow
from runclaim.service.flows import known_flow, known_flows, requested_run
from runclaim.service.run_request import RunRequest

if TYPE_CHECKING:
    from tests.harness.bench import Bench

WANTED = RunRequest(flow="review", input={"repo": "acme/app", "number": 7, "base": "a1", "head": "b2"})


@pytest.fixture
def outside(laptop: Bench) -> LedgerAccess:
    """A door without the application, whose workers have registered `review`."""
    flow = laptop.flow()
    flow.phase(name="plan")(lambda ctx: None)
    laptop.register(flow)
    return LedgerAccess(lambda: laptop.config, NoBroker, {}, database=laptop.database)


def test_both_doors_make_the_same_run_of_a_request(laptop: Bench, outside: LedgerAccess):
    inside = requested_run(known_flow(laptop.ledger, "review"), WANTED, trace_context=None)
    registered = requested_run(known_flow(outside, "review"), WANTED, trace_context=None)

    assert (inside.key, inside.fingerprint, inside.input, inside.phases) == (
        registered.key,
        registered.fingerprint,
        registered.input,
        registered.phases,
    )


def test_a_run_that_no_door_can_publish_is_beats_at_once(laptop: Bench, outside: LedgerAccess):
    """An application that declares other flows does not know the task of this one, so it is no help either."""
    laptop.flow("other").phase(name="one")(lambda ctx: None)
    other = LedgerAccess(lambda: laptop.config, NoBroker, {"other": laptop.flows["other"]}, database=laptop.database)
    waits = [
        requested_run(known_flow(access, "review"), WANTED, trace_context=None).dispatch_after
        for access in (laptop.ledger, outside, other)
    ]

    assert [laptop.config.dispatch_after, timedelta(0), timedelta(0)] == waits


def test_a_flow_that_nobody_knows_is_refused_with_those_that_are_known(outside: LedgerAccess):
    with pytest.raises(UnknownFlow) as unknown:
        known_flow(outside, "revue")

    assert (["review"], "revue") == (unknown.value.known, unknown.value.name)


def test_the_declared_flow_stands_for_what_was_registered(laptop: Bench, outside: LedgerAccess):
    laptop.flows["review"].phase(name="deliver")(lambda ctx: None)
    inside, registered = (known_flows(access)[0] for access in (laptop.ledger, outside))

    assert (("plan", "deliver"), ("plan",)) == (inside.phase_names, registered.phase_names)


@pytest.mark.parametrize("name", ["key", "subject"])
def test_a_name_that_the_flow_computes_is_not_taken_from_a_request(laptop: Bench, outside: LedgerAccess, name: str):
    wanted = RunRequest(flow="review", input=WANTED.input, **{name: "another"})

    for access in (laptop.ledger, outside):
        with pytest.raises(InputError, match=f"^{name}: .*leave it out"):
            requested_run(known_flow(access, "review"), wanted, trace_context=None)
