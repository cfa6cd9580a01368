"""Generated types and values: what is taken comes back equal by every door, and what is not is refused by its field."""

from __future__ import annotations

import dataclasses
import itertools
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal, NamedTuple, Union

import pydantic
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from runclaim.errors import DeclarationError, InputError
from runclaim.flows.client.new_run import Options
from runclaim.flows.declare.results import ResultType


class Word(Enum):
    RED = "r"
    BLUE = "b"


class Rank(IntEnum):
    FIRST = 1
    SECOND = 2


class Kind(NamedTuple):
    """A type, and values that its declaration allows."""

    declared: Any
    values: st.SearchStrategy[Any]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=4)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
ZONE = st.sampled_from([None, UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-5, minutes=-30))])
MOMENT = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=ZONE)  # noqa: DTZ001 - zones are drawn
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
LEAVES = [
    Kind(int, st.integers(-(2**60), 2**60)),
    Kind(float, FLOAT),
    Kind(bool, st.booleans()),
    Kind(str, TEXT),
    Kind(date, st.dates()),
    Kind(datetime, MOMENT),
    Kind(time, st.times()),
    Kind(timedelta, st.timedeltas(timedelta(days=-999), timedelta(days=999))),
    Kind(Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**6), max_value=10**6)),
    Kind(uuid.UUID, st.uuids()),
    Kind(Word, st.sampled_from(Word)),
    Kind(Rank, st.sampled_from(Rank)),
    Kind(Literal["a", 1], st.sampled_from(["a", 1])),
    Kind(Any, JSON | st.dates() | st.tuples(st.integers(0, 1)) | st.dictionaries(st.integers(0, 3), TEXT, max_size=1)),
]
HASHED = [leaf for leaf in LEAVES if leaf.declared is not Any]
_numbers = itertools.count()


@st.composite
def kinds(draw: Any, *, models: bool, depth: int = 2) -> Kind:
    """A type of any shape; with `models`, pydantic's too."""
    shape = draw(st.sampled_from(["leaf", "leaf", "set", "object", *_AROUND, "dict", "pair", "union"]))
    if shape == "leaf" or depth == 0:
        return draw(st.sampled_from(LEAVES))
    if shape == "object":
        return draw(objects(models=models, depth=depth - 1))
    inner = draw(kinds(models=models, depth=depth - 1))
    if shape in _AROUND:
        return _AROUND[shape](inner)
    return _of_two(shape, draw(st.sampled_from(HASHED)), inner)


_AROUND = {
    "list": lambda inner: Kind(list[inner.declared], st.lists(inner.values, max_size=2)),
    "tuple": lambda inner: Kind(tuple[inner.declared, ...], st.lists(inner.values, max_size=2).map(tuple)),
    "maybe": lambda inner: (
        Kind(inner.declared | None, inner.values | st.none()) if inner.declared is not Any else inner
    ),
}


def _of_two(shape: str, key: Kind, inner: Kind) -> Kind:
    if shape == "set":
        return Kind(set[key.declared], st.sets(key.values, max_size=3))
    if shape == "dict":
        return Kind(dict[key.declared, inner.declared], st.dictionaries(key.values, inner.values, max_size=2))
    if shape == "union" and inner.declared is not Any:
        return Kind(Union[key.declared, inner.declared], key.values | inner.values)  # noqa: UP007 - whatever they are
    return Kind(tuple[key.declared, inner.declared], st.tuples(key.values, inner.values))


@st.composite
def objects(draw: Any, *, models: bool, depth: int = 2, has_id: bool = False) -> Kind:
    """A dataclass or a model; a value may be of a subclass that has one more field."""
    fields = draw(st.lists(kinds(models=models, depth=depth), min_size=1, max_size=3))
    named = {f"f{number}": each for number, each in enumerate(fields)}
    if has_id:
        named["id"] = Kind(int, st.integers(0, 2**40))
    name = f"Made{next(_numbers)}"
    if models:
        made = pydantic.create_model(name, **{label: (each.declared, ...) for label, each in named.items()})
        more = pydantic.create_model(f"{name}More", __base__=made, more=(int, 3))
    else:
        made = dataclasses.make_dataclass(name, [(label, each.declared) for label, each in named.items()])
        more = dataclasses.make_dataclass(f"{name}More", [("more", int, 3)], bases=(made,))
    own = st.builds(made, **{label: each.values for label, each in named.items()})
    if has_id or draw(st.integers(0, 4)):
        return Kind(made, own)
    return Kind(made, st.builds(more, **{label: each.values for label, each in named.items()}))


QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
ROOTS = st.booleans().flatmap(lambda models: objects(models=models, has_id=True))


def tried(call: Any, *arguments: Any, **named: Any) -> tuple[Any, str]:
    """What the call gave, or the words of its refusal."""
    try:
        return call(*arguments, **named), ""
    except (DeclarationError, InputError) as refused:
        event(type(refused).__name__)
        return None, str(refused)


def given_value(data: Any, kind: Kind) -> Any:
    try:
        return data.draw(kind.values)
    except (pydantic.ValidationError, TypeError):
        # A model refuses what another member of the union would have to be.
        assume(False)
        raise


def body_of(declared: Any) -> Any:
    def body(ctx):
        return ctx.input

    body.__annotations__["return"] = declared
    return body


@QUICK
@given(kind=ROOTS, data=st.data())
def test_an_input_comes_back_equal_or_is_refused_by_a_field(laptop, kind, data):
    """
    INVARIANT: what the body gets is what was handed over, by every door; or it is refused where it is handed over.

    Breaks if anything is kept that is read as something else, or if a door has a spelling of its own.
    """
    flow, refused = tried(laptop.flow, f"f{next(_numbers)}", kind.declared, key="{id}")
    if flow is None:
        assert kind.declared.__name__ in refused
        return
    flow.phase(name="work")(lambda ctx: None)
    its, value = flow.input_type, given_value(data, kind)
    taken, refused = tried(its.take, value)
    if taken is None:
        assert refused.startswith(("f", "id"))
        return
    read, plain = taken
    inside = flow.using().new_run({name: getattr(value, name) for name in its.fields})
    known = laptop.outside(flow)
    own_code = known.description.own_code
    event("for every door" if own_code is None else "for the application alone")
    outside = inside if own_code else known.new_run(plain, Options(), project="default")

    assert value == read == its.load(json.loads(json.dumps(plain)))
    assert plain == inside.input
    assert (inside.input, inside.fingerprint, inside.key) == (outside.input, outside.fingerprint, outside.key)


@QUICK
@given(kind=st.booleans().flatmap(lambda models: kinds(models=models, depth=3)), data=st.data())
def test_a_result_comes_back_equal_or_is_refused(kind, data):
    """
    INVARIANT: `ctx.result` is what the phase returned, or the phase itself is told.

    Breaks if a result is recorded that the next phase reads as something else.
    """
    its, refused = tried(ResultType, body_of(kind.declared), phase="review.plan")
    if its is None:
        assert "the result of review.plan" in refused
        return
    value = given_value(data, kind)
    text, refused = tried(its.dump, value)
    if text is None:
        assert refused.startswith("the result of review.plan")
        return

    assert value == its.load(json.loads(text))


@settings(QUICK, max_examples=8)
@given(kind=ROOTS, data=st.data())
def test_a_body_gets_what_was_handed_over_whichever_database_kept_it(bench, kind, data):
    """
    INVARIANT: the same through the tables of both databases, with the result of the phase before.

    Breaks if a database changes what it keeps.
    """
    flow, _ = tried(bench.flow, f"f{next(_numbers)}", kind.declared, key="{id}")
    assume(flow)
    value, seen = given_value(data, kind), []
    plan = flow.phase(name="plan")(body_of(kind.declared))
    flow.phase(name="work")(lambda ctx: seen.extend([ctx.input, ctx.result(plan)]))
    run, _ = tried(flow.enqueue, value)
    assume(run)
    bench.finish(flow, run)

    assert [value, value] == seen
