"""The check of an input against a registered schema: as jsonschema decides, in bounded time, and without secrets."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from runclaim.errors import InputError
from runclaim.flows.declare import validator
from runclaim.flows.declare.validator import problems_of

TEXTS = {"type": "array", "items": {"type": "string"}}
SET = TEXTS | {"uniqueItems": True}
NAMED = {"type": "object", "properties": {"a": {"type": "integer"}}, "patternProperties": {"^x+$": {"type": "string"}}}
#: Each branch of the union looks at all that is below it.
TREE = {
    "$defs": {
        "Node": {
            "anyOf": [
                {"type": "object", "properties": {"left": {"$ref": "#/$defs/Node"}}, "required": [name]}
                for name in ("a", "b", "c")
            ]
        }
    },
    "$ref": "#/$defs/Node",
}

ATTACKS = {
    "a set of texts and one number": (SET, [f"x{number}" for number in range(30_000)] + [1]),
    "a set of lists, objects and numbers": (
        {"type": "array", "uniqueItems": True},
        [each for number in range(10_000) for each in (number, [number], {"a": number})] + [{"a": 7}],
    ),
    "a pattern that goes back and forth": ({"type": "string", "pattern": "^(a+)+$"}, "a" * 5000 + "b"),
    "such a pattern for names": (
        {"type": "object", "patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"a" * 5000 + "b": 1},
    ),
    "names that nobody knows": ({"additionalProperties": False}, dict.fromkeys(map(str, range(30_000)))),
    "a value of an enum that is not one": ({"enum": [f"x{number}" for number in range(5_000)]}, "y" * 200_000),
    "a wrong item in each place": (TEXTS, list(range(30_000))),
}  # fmt: skip

_items = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 0.5]) | st.text("ax1", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ax", max_size=2), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ATTACKS)
def test_no_input_makes_a_check_slow(name):
    """
    INVARIANT: a check takes time in proportion to its input.

    Breaks if items are compared in pairs (30,000 took minutes), or patterns are matched by going back and forth. What
    is counted is this thread's own time: a busy machine does not fail it.
    """
    schema, value = ATTACKS[name]
    began = time.thread_time()
    found = problems_of(schema, value)

    assert found
    assert time.thread_time() - began < 3


def test_a_check_without_an_end_is_given_up(monkeypatch):
    """
    INVARIANT: also a schema whose branches multiply costs a bounded time.

    Breaks if a keyword is checked without a look at the clock.
    """
    monkeypatch.setattr(validator, "_MOST_SECONDS", 0.1)
    value: object = 1
    for _ in range(28):
        value = {"left": value}
    began = time.thread_time()

    with pytest.raises(InputError, match="to check against"):
        problems_of(TREE, value)
    assert time.thread_time() - began < 3


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True},
        {"uniqueItems": False},
        NAMED,
        NAMED | {"additionalProperties": False},
        NAMED | {"additionalProperties": {"type": "integer"}},
        {"type": "string", "pattern": "x1"},
        {"type": "string", "pattern": r"^(?=a)a"},
    ],
    ids=["set", "list", "open", "closed", "typed", "pattern", "looks around"],
)
@given(value=_items)
@settings(max_examples=30, deadline=None)
def test_what_fits_is_what_the_specification_says(schema, value):
    assert Draft202012Validator(schema).is_valid(value) == (problems_of(schema, value) == [])


def test_a_schema_that_names_its_dialect_is_checked_in_bounded_time_too():
    recursive = {"$schema": "https://json-schema.org/draft/2020-12/schema", "items": {"$ref": "#"}, "uniqueItems": True}

    assert [("/0", "has duplicate items")] == problems_of(recursive, [[1, 1.0]])


def test_a_secret_in_a_wrong_place_is_not_repeated():
    hidden = "ghp_" + "a1B2" * 9
    wrong_type = problems_of({"properties": {"head": {"type": "integer"}}}, {"head": hidden})
    unknown = problems_of({"additionalProperties": False}, {hidden: 1})
    below = problems_of({"additionalProperties": {"type": "integer"}}, {hidden: "x"})

    assert [] == [each for each in (wrong_type, unknown, below) if not each or hidden in str(each)]
