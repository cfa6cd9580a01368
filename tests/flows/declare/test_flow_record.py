"""A flow tells the ledger of itself: phases, templates, and a schema that takes and refuses what the flow does."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypedDict

import pydantic
import pytest

from runclaim.flows.declare.flow_record import describe
from runclaim.flows.declare.json_schema import input_schema
from runclaim.retries import Backoff


def test_a_flow_tells_its_phases_with_the_bounds_in_force_its_templates_and_its_hooks(laptop):
    review = laptop.flow(subject=lambda value: value.repo)

    @review.phase(queue="slow", max_attempts=2, lease=timedelta(minutes=2), backoff=Backoff(first=timedelta(seconds=1)))
    def plan(ctx):
        """Nothing."""

    @review.on_failed
    def tell(event):
        """Nothing."""

    record = describe(review, laptop.config)

    assert ("review", "{repo}:pr-{number}", None, True) == (record.name, record.key, record.subject, record.has_subject)
    assert {"on_failed": ["review.on_failed.tell"]} == record.hooks
    (phase,) = record.phases
    assert ("plan", "slow", 2, 2) == (phase.name, phase.queue, phase.max_attempts, phase.max_losses)
    assert (120.0, 3600.0) == (phase.lease, phase.max_duration)
    assert {"first": 1.0, "factor": 2.0, "ceiling": 600.0, "jitter": True} == phase.backoff


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


@pytest.mark.parametrize("declared,refuses", [(Plain, True), (Model, True), (Typed, True), (Open, False)])
def test_an_unknown_field_is_refused_unless_the_type_is_open(declared, refuses):
    schema = top(input_schema(declared, is_open=not refuses))

    assert refuses is (schema.get("additionalProperties") is False)
