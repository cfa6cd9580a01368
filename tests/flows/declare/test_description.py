"""A flow tells the ledger of itself: phases, templates, and a schema that takes and refuses what the flow does."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypedDict

import pydantic
import pytest

from runclaim.errors import DeclarationError
from runclaim.flows.declare.description import FlowDescription
from runclaim.flows.declare.json_schema import input_schema
from runclaim.flows.declare.secret_fields import SecretFields
from runclaim.keys import fingerprint
from runclaim.retries import Backoff


def test_a_flow_tells_its_phases_with_the_bounds_in_force_its_templates_and_its_hooks(laptop):
    review = laptop.flow(subject=lambda value: value.repo)

    @review.phase(queue="slow", max_attempts=2, lease=timedelta(minutes=2), backoff=Backoff(first=timedelta(seconds=1)))
    def plan(ctx):
        """Nothing."""

    @review.on_failed
    def tell(event):
        """Nothing."""

    found = review.described(laptop.config)

    assert ("review", "{repo}:pr-{number}", None, True) == (found.name, found.key, found.subject, found.has_subject)
    assert {"on_failed": ["review.on_failed.tell"]} == found.hooks
    (phase,) = found.phases
    assert ("plan", "slow", 2, 2) == (phase.name, phase.queue, phase.max_attempts, phase.max_losses)
    assert (timedelta(minutes=2), laptop.config.max_duration) == (phase.lease, phase.max_duration)
    assert Backoff(first=timedelta(seconds=1)) == phase.backoff


def test_a_flow_is_described_once_until_something_is_added_to_it(laptop):
    """
    INVARIANT: whoever asks gets what is declared now, and an enqueue describes nothing anew.

    Breaks if a phase or a hook that comes later is not in the description, or if each call makes one.
    """
    review = laptop.flow()
    review.phase(name="plan")(lambda ctx: None)
    first = review.described(laptop.config)
    unchanged = review.described(laptop.config)
    review.phase(name="deliver")(lambda ctx: None)
    longer = review.described(laptop.config)
    review.on_blocked(on_blocked)
    told = review.described(laptop.config)
    of_others = review.described(replace(laptop.config, lease=timedelta(minutes=9)))

    assert first is unchanged
    assert (("plan",), ("plan", "deliver")) == (first.phase_names, longer.phase_names)
    assert ({}, {"on_blocked": ["review.on_blocked.on_blocked"]}) == (longer.hooks, told.hooks)
    assert timedelta(minutes=9) == of_others.phases[0].lease


def on_blocked(event):
    """A hook."""


def test_a_flow_without_phases_has_no_description(laptop):
    with pytest.raises(DeclarationError, match="flow review has no phases"):
        laptop.flow().described(laptop.config)


#: What a worker of 0.1.0 keeps of a flow. It stands in ledgers; a row of it has to be read for good.
STORED = {
    "name": "review",
    "phases": [
        {
            "name": "plan",
            "queue": "slow",
            "on": "approved",
            "max_attempts": 5,
            "max_losses": 2,
            "lease": 60.0,
            "max_duration": 3600.0,
            "backoff": {"first": 2.0, "factor": 2.0, "ceiling": 600.0, "jitter": True},
        }
    ],
    "input": {"type": "object", "properties": {"repo": {"type": "string"}}},
    "own_code": None,
    "key": "{repo}",
    "subject": None,
    "has_subject": True,
    "allow_secrets": ["title"],
    "secrets": {"token": ["secret:env:FORGE_*"]},
    "keep_keys": 7776000.0,
    "dispatch_after": 30.0,
    "hooks": {"on_failed": ["review.on_failed.tell"]},
    "fail_open": True,
}
#: Before these were added, no row had them.
ADDED_LATER = {"own_code": None, "allow_secrets": False, "secrets": {}, "hooks": {}, "fail_open": False}


def test_what_is_stored_of_a_flow_is_read_and_written_as_it_always_was():
    """
    INVARIANT: a release reads what another one has registered, and a worker that starts writes nothing of its own.

    Breaks if a field is renamed, or a duration is stored in another unit: every worker would then write at each start.
    """
    found = FlowDescription.from_json(STORED)

    assert STORED == json.loads(json.dumps(found.as_json()))
    assert fingerprint(STORED) == fingerprint(found.as_json())
    assert (timedelta(hours=1), timedelta(seconds=30)) == (found.phases[0].max_duration, found.dispatch_after)
    assert SecretFields(("title",), {"token": ("secret:env:FORGE_*",)}) == found.secrets


def test_a_row_of_an_earlier_release_is_read_without_what_it_does_not_have():
    earlier = {name: each for name, each in STORED.items() if name not in ADDED_LATER}

    assert STORED | ADDED_LATER == json.loads(json.dumps(FlowDescription.from_json(earlier).as_json()))


def test_what_a_later_release_adds_does_not_hide_the_flow_from_this_one():
    (phase,) = STORED["phases"]
    later = STORED | {"colour": "red", "phases": [phase | {"colour": "red", "backoff": phase["backoff"] | {"x": 1}}]}

    assert FlowDescription.from_json(STORED) == FlowDescription.from_json(later)


@dataclass
class Plain:
    number: int
    names: list[str] = field(default_factory=list)
    word: str = "x"
    stamp: Any = field(default_factory=object)


class Model(pydantic.BaseModel):
    number: int = pydantic.Field(alias="No")
    names: list[str] = pydantic.Field(default_factory=list)
    word: str = "x"


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    number: int


class Typed(TypedDict, total=False):
    number: int


def top(schema):
    return schema["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


@pytest.mark.parametrize("declared", [Plain, Model])
def test_a_schema_has_the_fields_by_their_names_and_every_constant_default(declared):
    properties = top(input_schema(declared, is_open=False))["properties"]

    assert ([], "x") == (properties["names"]["default"], properties["word"]["default"])
    assert "default" not in properties["number"]
    assert "default" not in properties.get("stamp", {})


class Stamped(pydantic.BaseModel):
    number: int
    names: list[str] = pydantic.Field(default_factory=list)
    stamp: str = pydantic.Field(default_factory=lambda: str(uuid.uuid4()))


@pytest.mark.parametrize("declared", [Plain, Stamped])
def test_a_field_whose_default_is_another_each_time_has_to_be_given_and_no_other(declared):
    """
    INVARIANT: an input that leaves a field out is the same input from every door.

    Breaks if a door without the application may leave out what only the application can make.
    """
    assert {"number", "stamp"} == set(top(input_schema(declared, is_open=False))["required"])


@pytest.mark.parametrize("declared,refuses", [(Plain, True), (Model, True), (Typed, True), (Open, False)])
def test_an_unknown_field_is_refused_unless_the_type_is_open(declared, refuses):
    schema = top(input_schema(declared, is_open=not refuses))

    assert refuses is (schema.get("additionalProperties") is False)
