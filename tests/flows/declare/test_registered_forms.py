"""One input through every door is one run, or the door refuses: spellings, defaults, types with code of their own."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import attrs
import pydantic
import pytest

from runclaim.errors import InputError
from runclaim.flows.client.new_run import Options
from runclaim.flows.declare.registered_inputs import InputRefused


class Rank(IntEnum):
    FIRST = 1


@dataclass
class Part:
    name: str
    count: float = 1
    labels: list[str] = field(default_factory=list)


@dataclass
class Order:
    id: int
    at: datetime | None = None
    day: date | None = None
    hour: time | None = None
    wait: timedelta = timedelta(0)
    ident: uuid.UUID | None = None
    tags: frozenset[str] = frozenset()
    numbers: set[float] = field(default_factory=set)
    price: Decimal = Decimal(0)
    rate: float = 1
    maybe: float | None = None
    either: int | float = 1
    rank: Rank = Rank.FIRST
    word: Literal["a", 1] = "a"
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    pair: tuple[int, datetime] | None = None
    by_number: dict[int, Decimal] = field(default_factory=dict)
    raw: bytes = b""
    again: Order | None = None


class Model(pydantic.BaseModel):
    id: int
    at: datetime | None = None
    day: date | None = None
    wait: timedelta = timedelta(0)
    ident: uuid.UUID | None = None
    tags: frozenset[str] = frozenset()
    numbers: set[float] = set()
    price: Decimal = Decimal(0)
    rate: float = 1
    maybe: float | None = None
    rank: Rank = Rank.FIRST
    word: Literal["a", 1] = "a"
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    pair: tuple[int, datetime] | None = None


SPELLINGS = {
    "UTC as +00:00": {"at": "2031-05-01T00:00:00+00:00"},
    "UTC as Z": {"at": "2031-05-01T00:00:00Z"},
    "milliseconds": {"at": "2031-05-01T00:00:00.500Z"},
    "another zone": {"at": "2031-05-01T02:00:00.500000+02:00"},
    "no zone": {"at": "2031-05-01T02:00:00"},
    "a date": {"day": "2031-05-01"},
    "an hour as 3600 s": {"wait": "PT3600S"},
    "an hour": {"wait": "PT1H"},
    "more than a year": {"wait": "P366DT1H"},
    "a UUID in capitals": {"ident": "0195C0DE-0000-7000-8000-00000000000A"},
    "a set out of order": {"tags": ["b", "a", "c"]},
    "a set with a double": {"tags": ["b", "a", "b"]},
    "a set of numbers": {"numbers": [3, 1, 3.0, 2.5]},
    "a Decimal as a number": {"price": 1.5},
    "a Decimal as a whole number": {"price": 2},
    "a Decimal as text": {"price": "1.50"},
    "a whole number for a broken one": {"rate": 3, "maybe": 4},
    "an enum": {"rank": 1, "word": 1},
    "defaults deeper": {"part": {"name": "a"}, "parts": [{"name": "b", "count": 2}]},
    "in a tuple": {"pair": [1, "2031-05-01T00:00:00+00:00"]},
}
PLAIN_ONLY = {
    "a time": {"hour": "12:00:00"},
    "whole or broken": {"either": 3},
    "broken or whole": {"either": 3.0},
    "numbers as keys": {"by_number": {"7": 1.50, "-1": "2"}},
    "bytes": {"raw": "YWJj"},
    "itself": {"again": {"id": 2, "at": "2031-05-01T00:00:00+00:00", "again": {"id": 3}}},
}


def declared(bench, kind, **how):
    flow = bench.flow("order", kind, **({"key": "{id}"} | how))

    @flow.phase
    def ship(ctx):
        """Nothing."""

    return flow


def outside(bench, flow, given):
    return bench.outside(flow).new_run(given, Options(), project="default")


@pytest.mark.parametrize(
    "kind,given",
    [
        *((Order, given) for given in (SPELLINGS | PLAIN_ONLY).values()),
        *((Model, given) for given in SPELLINGS.values()),
    ],
)
def test_an_input_is_the_same_run_however_it_is_spelled_and_wherever_it_comes_in(laptop, kind, given):
    """
    INVARIANT: the same input is the same run through all doors.

    Breaks if a door fingerprints the text as it was sent, or fills in other defaults.
    """
    flow = declared(laptop, kind)
    inside, found = flow.using().new_run({"id": 1} | given), outside(laptop, flow, {"id": 1} | given)

    assert flow.described(laptop.config).own_code is None
    assert (inside.input, inside.fingerprint, inside.key) == (found.input, found.fingerprint, found.key)


REFUSED = {
    "no moment": ({"at": "yesterday"}, "/at"),
    "no UUID": ({"ident": "7"}, "/ident"),
    "no Decimal": ({"price": "much"}, "/price"),
    "no number as a key": ({"by_number": {"x": "1"}}, "/by_number"),
    "a number as a key, spelled otherwise": ({"by_number": {"07": "1"}}, "/by_number"),
    "an unknown field deeper": ({"part": {"name": "a", "colour": "red"}}, "/part"),
    "no base64": ({"raw": "?"}, "/raw"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_application_could_not_read_is_refused_at_the_door(laptop, kind):
    given, pointer = REFUSED[kind]
    flow = declared(laptop, Order)

    with pytest.raises(InputRefused) as refused:
        outside(laptop, flow, {"id": 1} | given)
    assert [pointer] == [place for place, _ in refused.value.problems]
    with pytest.raises(InputError):
        flow.using().new_run({"id": 1} | given)


@dataclass
class Hooked:
    id: int

    def __post_init__(self) -> None:
        self.id = abs(self.id)


@dataclass
class HookedDeeper:
    id: int
    inner: list[Hooked] = field(default_factory=list)


@attrs.define
class Converted:
    id: int = attrs.field(converter=abs)


@dataclass
class HoldsConverted:
    id: int
    inner: Converted | None = None


@dataclass
class Dated:
    id: int
    days: dict[date, int] = field(default_factory=dict)


class Lowered(pydantic.BaseModel):
    id: Annotated[str, pydantic.StringConstraints(to_lower=True)]


class Stripped(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(str_strip_whitespace=True)
    id: str


class Validated(pydantic.BaseModel):
    id: int

    @pydantic.field_validator("id")
    @classmethod
    def _positive(cls, value: int) -> int:
        return abs(value)


class Annotated1(pydantic.BaseModel):
    id: Annotated[int, pydantic.AfterValidator(abs)]


class Mailed(pydantic.BaseModel):
    id: int
    url: pydantic.AnyUrl | None = None


class Unclear(pydantic.BaseModel):
    id: int
    when: datetime | str = ""


class Bounded(pydantic.BaseModel):
    id: int
    price: Annotated[Decimal, pydantic.Field(gt=0)] = Decimal(1)


class Deeper(pydantic.BaseModel):
    id: int
    inner: Validated | None = None


WITH_CODE = [
    Hooked,
    HookedDeeper,
    HoldsConverted,
    Dated,
    Lowered,
    Stripped,
    Validated,
    Annotated1,
    Mailed,
    Unclear,
    Bounded,
    Deeper,
]


@pytest.mark.parametrize("kind", WITH_CODE)
def test_a_type_with_code_of_its_own_is_for_its_application_alone(laptop, kind):
    """
    INVARIANT: a door without the application makes no second run of one thing.

    Breaks if ` Ann` and `ann` are two keys here and one where the type's code runs.
    """
    with pytest.raises(InputError, match="run it with -A"):
        outside(laptop, declared(laptop, kind), {"id": 1})


class Optional(TypedDict):
    id: int
    note: NotRequired[str]


@dataclass
class Stamped:
    id: int
    stamp: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass
class Anything:
    id: int
    more: dict[str, Any] = field(default_factory=dict)


def test_a_field_that_may_be_missing_stays_missing(laptop):
    flow = declared(laptop, Optional)

    assert {"id": 1} == outside(laptop, flow, {"id": 1}).input == flow.using().new_run({"id": 1}).input


def test_a_default_that_is_new_each_time_has_to_be_given_at_the_door(laptop):
    """The first phase would make another one at each attempt."""
    flow = declared(laptop, Stamped)

    with pytest.raises(InputRefused, match="stamp"):
        outside(laptop, flow, {"id": 1})


def test_where_anything_may_be_nothing_is_changed(laptop):
    flow = declared(laptop, Anything)
    given = {"id": 1, "more": {"at": "2031-05-01T00:00:00+00:00", "n": 1.0, "s": ["b", "a", "b"]}}

    assert given == outside(laptop, flow, given).input == flow.using().new_run(given).input


def test_a_duration_of_years_is_one_of_days_as_the_ledger_keeps_it(laptop):
    """Pydantic writes 366 days as a year and a day, which msgspec does not read."""
    flow = declared(laptop, Model)
    inside = flow.using().new_run({"id": 1, "wait": timedelta(days=-366, hours=-1)})

    assert "-P366DT3600S" == inside.input["wait"]
    assert inside.fingerprint == outside(laptop, flow, {"id": 1, "wait": "-P1Y1DT1H"}).fingerprint


def test_a_set_of_a_model_has_one_order(laptop):
    flow = declared(laptop, Model)
    words = [f"word-{number}" for number in range(20)]

    assert sorted(words) == flow.using().new_run({"id": 1, "tags": set(words)}).input["tags"]
