"""Typed inputs: what is accepted, what comes back in the worker, and what is refused before anything is written."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections import ChainMap
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NotRequired, TypedDict

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field

from runclaim.errors import DeclarationError, InputError
from runclaim.flows.declare.inputs import InputType
from runclaim.keys import MAX_JSON_BYTES, fingerprint


class Size(Enum):
    SMALL = "s"


@dataclass(frozen=True)
class Part:
    name: str
    count: int = 1


@dataclass(frozen=True)
class Order:
    number: int
    at: datetime
    ident: uuid.UUID
    price: Decimal
    size: Size
    parts: tuple[Part, ...] = ()
    tags: frozenset[str] = frozenset()
    more: dict[str, Any] = field(default_factory=dict)


class OrderDict(TypedDict):
    number: int
    note: NotRequired[str]


class OrderModel(BaseModel):
    model_config = ConfigDict(strict=True)
    number: int
    day: date
    label: str = Field(default="x", alias="orderLabel")

    @computed_field
    @property
    def double(self) -> int:
        return 2 * self.number


class OpenModel(BaseModel):
    model_config = ConfigDict(extra="allow")
    number: int


AN_ORDER = Order(
    number=7,
    at=datetime(2031, 5, 1, tzinfo=UTC),
    ident=uuid.UUID(int=7),
    price=Decimal("9.90"),
    size=Size.SMALL,
    parts=(Part("bolt"), Part("nut", 2)),
    tags=frozenset({"a", "b"}),
    more={"deep": [1, {"x": None}]},
)
GOOD = {
    "dataclass": (Order, AN_ORDER),
    "TypedDict": (OrderDict, {"number": 7}),
    "TypedDict with an optional field": (OrderDict, {"number": 7, "note": "n"}),
    "strict pydantic model with an alias": (OrderModel, OrderModel(number=7, day=date(2031, 5, 1), orderLabel="y")),
    "pydantic model that takes anything": (OpenModel, OpenModel(number=7, other=[1])),
}


@pytest.mark.parametrize("kind", GOOD)
def test_an_input_comes_back_as_it_was_given(kind):
    declared, value = GOOD[kind]
    its = InputType(declared)
    through_the_ledger = json.loads(json.dumps(its.dump(its.check(value))))

    assert its.check(value) == value
    assert its.load(through_the_ledger) == value


def test_fields_may_be_given_as_python_has_them():
    its = InputType(Order)
    given = {name: getattr(AN_ORDER, name) for name in its.fields}

    assert AN_ORDER == its.check(given)
    assert AN_ORDER == its.check(ChainMap(given))
    assert "x" == InputType(OrderModel).check({"number": 7, "day": date(2031, 5, 1)}).label


def test_a_field_is_given_by_its_name_whatever_its_alias():
    its = InputType(OrderModel)

    assert "y" == its.check({"number": 7, "day": date(2031, 5, 1), "label": "y"}).label


BAD = {
    "a wrong type": (Order, {"number": "seven"}, "number: Expected `int`, got `str`"),
    "a wrong type deep inside": (
        Order,
        {"number": 7, "at": AN_ORDER.at, "ident": AN_ORDER.ident, "price": 1, "size": "s", "parts": [{"name": 1}]},
        "parts[0].name: Expected `str`, got `int`",
    ),
    "a missing field": (Part, {}, "name: Object missing required field `name`"),
    "an unknown field": (Part, {"name": "bolt", "colour": "red"}, "colour: is not a field of Part; it has name, count"),
    "an unknown field of a model": (
        OrderModel,
        {"number": 7, "day": date(2031, 5, 1), "colour": "red"},
        "colour: is not a field of OrderModel; it has number, day, label",
    ),
    "another class": (Part, AN_ORDER, "input: is of type Order; pass Part(…) or its fields by name"),
    "no mapping": (OrderDict, 7, "input: is of type int; pass OrderDict(…) or its fields by name"),
    "a wrong value in a dataclass": (Part, Part(name=7), "name: Expected `str`, got `int`"),  # type: ignore[arg-type]
    "a wrong value in a model": (OrderModel, {"number": 7, "day": "monday"}, "day: Input should be a valid date"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_input_that_does_not_fit_is_refused_by_its_field(kind):
    declared, value, expected = BAD[kind]

    with pytest.raises(InputError) as refused:
        InputType(declared).check(value)
    assert expected == str(refused.value)


class Anything(TypedDict):
    value: Any


REFUSED_BY_A_DATABASE = {
    "NaN": (float("nan"), "input.value: is nan, which JSON does not have; use None or text"),
    "infinity deep inside": (
        [{"x": float("-inf")}],
        "input.value[0].x: is -inf, which JSON does not have; use None or text",
    ),
    "NUL": ("a\x00b", "input.value: contains NUL or a lone surrogate, which databases refuse; remove it"),
    "a lone surrogate": (
        ["\ud800"],
        "input.value[0]: contains NUL or a lone surrogate, which databases refuse; remove it",
    ),
    "NUL in a key": ({"\x00": 1}, "input.value: contains NUL or a lone surrogate, which databases refuse; remove it"),
    "an object": (object(), "input: is not JSON: Encoding objects of type object is unsupported"),
}


@pytest.mark.parametrize("kind", REFUSED_BY_A_DATABASE)
def test_what_a_database_would_refuse_is_refused_before(kind):
    value, expected = REFUSED_BY_A_DATABASE[kind]

    with pytest.raises(InputError) as refused:
        InputType(Anything).dump({"value": value})
    assert expected == str(refused.value)


def test_text_that_reads_like_an_escape_is_none():
    value = {"value": "\\u0000 and \\ud800"}

    assert InputType(Anything).dump(value) == value


def test_what_nests_without_end_is_refused():
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(InputError, match="input: is not JSON"):
        InputType(Anything).dump({"value": endless})


@pytest.mark.parametrize("character", ["a", "é", "字", "😀"])
def test_the_size_of_an_input_is_counted_in_utf_8(character):
    """
    INVARIANT: 256 kB of text fit in any script.

    Breaks if the escapes of JSON are counted: a Chinese text would fit half.
    """
    frame = len(json.dumps({"value": ""}, separators=(",", ":")))
    most = (MAX_JSON_BYTES - frame) // len(character.encode())
    its = InputType(Anything)
    its.dump({"value": character * most})

    with pytest.raises(InputError, match="at most 262,144 fit; store it elsewhere and pass a reference"):
        its.dump({"value": character * (most + 1)})


def test_numbers_as_keys_of_an_object_are_their_text():
    its = InputType(Anything)
    plain = its.dump({"value": {1: "a", "b": 2}})

    assert {"value": {"1": "a", "b": 2}} == plain
    assert fingerprint(plain) == fingerprint(json.loads(json.dumps(plain)))


PRINT_FINGERPRINT = """
from tests.flows.declare.test_inputs import Anything, InputType, fingerprint
print(fingerprint(InputType(Anything).dump({"value": {"alpha", "beta", "gamma", "delta"}})))
"""


def test_a_set_has_the_same_fingerprint_in_every_process():
    """
    INVARIANT: the same input has the same fingerprint wherever it is enqueued.

    Breaks if sets are dumped in the order of their hashes, which differs from process to process.
    """
    told = {
        subprocess.run(
            [sys.executable, "-c", PRINT_FINGERPRINT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert 1 == len(told)


def test_a_type_that_only_a_type_checker_sees_is_refused():
    @dataclass
    class Hidden:
        value: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DeclarationError, match=r"defined where the module can see them at run time"):
        InputType(Hidden)
