"""What the body gets is what was handed over, or the field is refused where it is declared or enqueued."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from runclaim.errors import DeclarationError, InputError
from runclaim.flows.declare.inputs import InputType
from runclaim.flows.declare.results import ResultType
from runclaim.flows.declare.round_trip import require_same


class Rank(IntEnum):
    FIRST = 1


class Colour(Enum):
    RED = "r"


A_DAY = date(2031, 5, 1)
AN_ID = uuid.UUID(int=7)


@dataclass
class Order:
    whole: dict[int, int] = field(default_factory=dict)
    broken: dict[float, str] = field(default_factory=dict)
    ranks: dict[Rank, int] = field(default_factory=dict)
    colours: dict[Colour, int] = field(default_factory=dict)
    ids: dict[uuid.UUID, int] = field(default_factory=dict)
    days: dict[date, list[dict[int, str]]] = field(default_factory=dict)
    prices: dict[Decimal, int] = field(default_factory=dict)
    either: dict[int | str, int] = field(default_factory=dict)


class OrderModel(pydantic.BaseModel):
    whole: dict[int, int] = {}
    broken: dict[float, str] = {}
    ranks: dict[Rank, int] = {}
    ids: dict[uuid.UUID, int] = {}
    days: dict[date, list[dict[int, str]]] = {}


KEYED = {
    "whole numbers": {"whole": {7: 2}},
    "broken numbers": {"broken": {1.5: "a", 1e22: "b"}},
    "an IntEnum": {"ranks": {Rank.FIRST: 1}},
    "UUIDs": {"ids": {AN_ID: 1}},
    "dates, with numbers deeper": {"days": {A_DAY: [{1: "a"}]}},
}


@pytest.mark.parametrize("declared", [Order, OrderModel])
@pytest.mark.parametrize("kind", KEYED)
def test_keys_that_are_no_text_come_back_as_they_are(declared, kind):
    """
    INVARIANT: an input that was taken is read in the worker.

    Breaks if JSON's text is not read as the declared key: the run then fails when its caller is gone.
    """
    its = InputType(declared)
    whole, by_fields = its.take(declared(**KEYED[kind])), its.take(KEYED[kind])

    assert whole == by_fields
    assert declared(**KEYED[kind]) == its.load(json.loads(json.dumps(whole[1])))


def test_keys_given_as_json_has_them_are_the_same_input():
    its = InputType(Order)

    assert its.take({"whole": {7: 2}}) == its.take({"whole": {"7": 2}})


@dataclass
class Flags:
    by_flag: dict[bool, int]


@dataclass
class Places:
    board: list[dict[tuple[int, int], str]]


class FlagsModel(pydantic.BaseModel):
    by_flag: dict[bool, int]


class PlacesModel(pydantic.BaseModel):
    board: list[dict[tuple[int, int], str]]


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr


class Deep(pydantic.BaseModel):
    logins: list[Login] | None = None


@dataclass
class PlainLogin:
    password: pydantic.SecretStr


class Hiding(pydantic.BaseModel):
    hidden: str = pydantic.Field("", exclude=True)


REFUSED_TYPES = {
    "bool keys": (Flags, "Flags.by_flag: has keys of type bool"),
    "tuple keys": (Places, "Places.board: has keys of type tuple"),
    "bool keys of a model": (FlagsModel, "FlagsModel.by_flag: has keys of type bool"),
    "tuple keys of a model": (PlacesModel, "PlacesModel.board: has keys of type tuple"),
    "a SecretStr": (Login, "Login.password: SecretStr hides its value.* secret:env:NAME"),
    "a SecretStr deeper": (Deep, "Deep.logins.password: SecretStr hides"),
    "a SecretStr of a dataclass": (PlainLogin, "PlainLogin.password: SecretStr hides"),
    "an excluded field": (Hiding, "Hiding.hidden: is excluded from the model's JSON"),
}


@pytest.mark.parametrize("kind", REFUSED_TYPES)
def test_a_type_that_json_cannot_keep_is_refused_where_it_is_declared(kind):
    declared, expected = REFUSED_TYPES[kind]

    def body(ctx): ...

    body.__annotations__["return"] = declared

    with pytest.raises(DeclarationError, match=expected):
        InputType(declared)
    with pytest.raises(DeclarationError, match=expected.partition(".")[2]):
        ResultType(body, phase="review.plan")


@dataclass
class Base:
    a: int


@dataclass
class Sub(Base):
    b: int = 0


@dataclass
class Holder:
    x: Base


class BaseModel(pydantic.BaseModel):
    a: int


class SubModel(BaseModel):
    b: int = 0


class HolderModel(pydantic.BaseModel):
    x: BaseModel


class Loose(pydantic.BaseModel):
    moment: str | date = ""
    price: str | Decimal = ""
    anything: Any = None


class Growing(pydantic.BaseModel):
    cents: int

    @pydantic.field_validator("cents")
    @classmethod
    def _as_cents(cls, value: int) -> int:
        return value * 100


@dataclass
class Growing2:
    cents: int

    def __post_init__(self) -> None:
        self.cents *= 100


class Remembering(pydantic.BaseModel):
    name: str
    _seen: int = pydantic.PrivateAttr(0)


class Paint(Enum):
    RED = "r"
    BLUE = "b"


class Pair(NamedTuple):
    left: int
    right: int


class Struct(msgspec.Struct):
    x: Any = None


@dataclass(eq=False)
class Incomparable:
    x: Any


@dataclass
class HoldsIncomparable:
    inner: Incomparable


def remembering() -> Remembering:
    made = Remembering(name="a")
    made._seen = 3
    return made


LOST = {
    "a text whose schema says that it stands for something else": (
        TypedDict("Named", {"id": Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]}),
        {"id": "0195C0DE-0000-7000-8000-000000000007"},
        "id",
    ),
    "a subclass in a field": (Holder, Holder(Sub(1, 2)), "x: is of type Sub and would be read as Base"),
    "a submodel in a field": (HolderModel, HolderModel(x=SubModel(a=1, b=2)), "x: is of type SubModel"),
    "a subclass of the input": (Base, Sub(1, 2), "input: is of type Sub and would be read as Base"),
    "a date in a union with text": (Loose, Loose(moment=A_DAY), "moment: is of type date and would be read as str"),
    "a Decimal in a union with text": (Loose, Loose(price=Decimal("1.10")), "price: is of type Decimal"),
    "a date where anything may be": (Loose, Loose(anything=[{"x": A_DAY}]), r"anything\[0\].x: is of type date"),
    "numbers as keys where anything may be": (Struct, Struct({1: 2}), "x.1: is not stored"),
    "a tuple where anything may be": (Struct, Struct({"y": (1, 2)}), "x.y: is of type tuple and would be read as list"),
    "a set where anything may be": (Struct, Struct({1, 2}), "x: is of type set"),
    "a Decimal in a class without equality": (Incomparable, Incomparable(Decimal(1)), "x: is of type Decimal"),
    "a validator that changes its own output": (Growing, Growing(cents=5), "cents: is 500 and would be read as 50000"),
    "the same by its fields": (Growing, {"cents": 5}, "cents: is 500 and would be read as 50000"),
    "a __post_init__ that does": (Growing2, Growing2(5), "cents: is 500 and would be read as 50000: .*__post_init__"),
    "the same, by its fields": (Growing2, {"cents": 5}, "cents: is 500 and would be read as 50000"),
    "what a model keeps to itself": (Remembering, remembering(), "_seen: is 3 and would be read as 0"),
}


@pytest.mark.parametrize("kind", LOST)
def test_what_a_body_would_get_otherwise_is_refused_by_its_field(kind):
    """
    INVARIANT: what the body gets is what was handed over.

    Breaks if what was written is not read again and compared with what was given.
    """
    declared, given, expected = LOST[kind]

    with pytest.raises(InputError, match=expected):
        InputType(declared).take(given)


SAME = {
    "a whole number in a field of broken ones": (TypedDict("Rate", {"rate": float}), {"rate": 3}),
    "a class without equality": (HoldsIncomparable, HoldsIncomparable(Incomparable([1, "a", None]))),
    "a validator that settles": (
        pydantic.create_model("Stripped", name=(pydantic.constr(strip_whitespace=True, to_lower=True), ...)),
        {"name": " Ann "},
    ),
    "a Struct that leaves defaults out": (msgspec.defstruct("S", [("n", int, 1)], omit_defaults=True), {"n": 1}),
    "a set of an Enum that has no order": (TypedDict("Coloured", {"in_": set[Paint]}), {"in_": set(Paint)}),
    "a NamedTuple": (TypedDict("T", {"pair": Pair}), {"pair": Pair(1, 2)}),
    "a time in another zone": (
        TypedDict("W", {"at": datetime}),
        {"at": datetime.fromisoformat("2031-05-01T02:00+02:00")},
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_comes_back_equal_is_taken(kind):
    declared, given = SAME[kind]
    its = InputType(declared)
    value, plain = its.take(given)

    assert plain == its.take(value)[1]
    assert plain == its.take(its.load(json.loads(json.dumps(plain))))[1]


class Line(TypedDict):
    name: str


@dataclass
class Cart:
    first: Base | None = None
    lines: list[Line] = field(default_factory=list)


@pytest.mark.parametrize(
    "given,place",
    [
        ({"first": {"a": 1, "colour": "red"}}, "first.colour: is not a field of Base"),
        ({"lines": [{"name": "a"}, {"name": "b", "colour": "red"}]}, r"lines\[1\].colour: is not a field of"),
    ],
)
def test_a_field_that_nobody_would_read_is_refused_however_deep(given, place):
    with pytest.raises(InputError, match=place):
        InputType(Cart).take(given)


def test_no_secret_stands_in_the_refusal():
    class Doubling(pydantic.BaseModel):
        token: str

        @pydantic.field_validator("token")
        @classmethod
        def _twice(cls, value: str) -> str:
            return f"{value}!"

    secret = "ghp_" + "a1B2" * 9
    with pytest.raises(InputError) as refused:
        InputType(Doubling).take({"token": secret})
    assert secret not in str(refused.value)


RESULTS = {
    "a subclass": (Base, Sub(1, 2), "the result of review.plan: is of type Sub and would be read as Base"),
    "a dict for a dataclass": (Base, {"a": 1}, "the result of review.plan: is of type dict and would be read as Base"),
    "a subclass in a list": (list[Base], [Base(1), Sub(1)], r"the result of review.plan\[1\]: is of type Sub"),
    "a date that nobody declared": (Any, {"at": A_DAY}, "the result of review.plan.at: is of type date"),
    "a dataclass that nobody declared": (
        Any,
        Base(1),
        "the result of review.plan: is of type Base and would be read as",
    ),
    "numbers as keys that nobody declared": (Any, {1: "a"}, "the result of review.plan.1: is not stored"),
    "a validator that changes its own output": (Growing, Growing(cents=1), "the result of review.plan.cents: is 100"),
}


def test_a_key_that_is_only_in_what_is_read_is_named():
    with pytest.raises(InputError, match=r"labels\.b: is missing here, but would appear when read back"):
        require_same("labels", {"a": 1}, {"a": 1, "b": 2})


def body_of(declared: Any) -> Any:
    def body(ctx): ...

    body.__annotations__["return"] = declared
    return body


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_that_a_later_phase_would_get_otherwise_is_refused_in_its_own_phase(kind):
    declared, given, expected = RESULTS[kind]

    with pytest.raises(InputError, match=expected):
        ResultType(body_of(declared), phase="review.plan").dump(given)


@pytest.mark.parametrize(
    "declared,given",
    [
        (dict[int, str], {1: "a"}),
        (dict[uuid.UUID, list[date]], {AN_ID: [A_DAY]}),
        (tuple[int, timedelta], (1, timedelta(hours=1))),
        (set[Decimal], {Decimal("1.10")}),
        (Any, {"a": [1, 2.5, None, True]}),
        (datetime, datetime(2031, 5, 1, tzinfo=UTC)),
    ],
)
def test_a_result_comes_back_as_it_was_returned(declared, given):
    its = ResultType(body_of(declared), phase="review.plan")

    assert given == its.load(json.loads(its.dump(given)))


def test_a_set_in_a_result_has_one_order():
    """Breaks if it is written as its hashes have it: the same result would be another one in another process."""
    words = {f"word {n:02}" for n in range(40)}

    def body(_ctx: Any) -> set[str]:
        return words

    assert sorted(words) == json.loads(ResultType(body, phase="one").dump(words))
