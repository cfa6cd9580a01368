"""A deploy changes an input's type: redelivered events find their runs, and what is in flight goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pydantic
import pytest

from runclaim.errors import KeyConflict
from runclaim.flows.client.enqueue import Enqueue, make_runs
from runclaim.flows.client.new_run import Options
from runclaim.states import RunState


@dataclass(frozen=True)
class Line:
    name: str


@dataclass(frozen=True)
class First:
    id: int
    note: str = ""
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class LineWithCount:
    name: str
    count: int = 1


@dataclass(frozen=True)
class Added:
    id: int
    note: str = ""
    lines: tuple[LineWithCount, ...] = ()
    gift: bool = False


@dataclass(frozen=True)
class Removed:
    id: int
    lines: tuple[Line, ...] = ()


class FirstModel(pydantic.BaseModel):
    id: int
    note: str = ""
    lines: tuple[Line, ...] = ()


class StrictModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    id: int
    lines: tuple[Line, ...] = ()


BEFORE = {"id": 7, "note": "n", "lines": [{"name": "a"}]}
CHANGES = {
    "fields with defaults are added, also deeper": (First, Added, BEFORE),
    "a field is gone": (First, Removed, {"id": 7, "lines": [{"name": "a"}]}),
    "a field of a model is gone": (FirstModel, StrictModel, {"id": 7, "lines": [{"name": "a"}]}),
    "a dataclass becomes a model": (First, FirstModel, BEFORE),
    "a whole number becomes a broken one": (
        First,
        TypedAs := pydantic.create_model("TypedAs", id=(float, ...)),
        {"id": 7},
    ),
}


def declared(bench, kind):
    flow = bench.flow("order", kind, key=lambda order: f"order-{order.id:g}")
    seen: list[Any] = []

    @flow.phase
    def ship(ctx):
        seen.append(ctx.input)

    return flow, seen


@pytest.mark.parametrize("change", CHANGES)
def test_a_redelivered_event_finds_its_run_after_the_type_has_changed(bench, change):
    """
    INVARIANT: a deploy that changes an input's type makes no conflict of an event that is told again.

    Breaks if the fingerprints alone decide: what today's type writes is not what yesterday's wrote.
    """
    before, after, again = CHANGES[change]
    run = declared(bench, before)[0].enqueue(**BEFORE)
    flow, seen = declared(bench, after)
    found = flow.enqueue(**again)
    many = flow.enqueue_many([again, again])
    bench.finish(flow, run)

    assert (run.id, False) == (found.id, found.created)
    assert {run.id} == {each.id for each in many}
    assert RunState.SUCCEEDED is run.state
    assert [flow.input_type.check(again)] == seen


@pytest.mark.parametrize("change", CHANGES)
def test_a_rerun_works_across_the_change(bench, change):
    before, after, again = CHANGES[change]
    old = declared(bench, before)[0].enqueue(**BEFORE)
    flow, _ = declared(bench, after)
    by_input = flow.using(rerun=True).enqueue(**again)
    by_handle = by_input.rerun()

    assert [1, 2] == [by_input.view.rerun, by_handle.view.rerun]
    assert RunState.SUPERSEDED is old.state


def test_another_input_is_a_conflict_across_the_change_too_and_says_only_what_differs(bench):
    declared(bench, First)[0].enqueue(**BEFORE)
    flow, _ = declared(bench, Added)

    with pytest.raises(KeyConflict, match="gift was None, is True") as refused:
        flow.enqueue(**BEFORE, gift=True)
    assert "lines" not in str(refused.value)
    with pytest.raises(KeyConflict, match="note was 'n', is 'other'"):
        flow.enqueue(**BEFORE | {"note": "other"})


@dataclass(frozen=True)
class Priced:
    id: int
    price: Decimal
    at: datetime
    tags: tuple[str, ...] = ()
    rate: float = 0.0
    either: dict[str, Decimal | None] = field(default_factory=dict)


class PricedModel(pydantic.BaseModel):
    id: int
    price: Decimal
    at: datetime
    tags: set[str] = set()
    rate: float = 0.0
    either: dict[str, Decimal | None] = {}


def priced(**how):
    moment = datetime(2031, 5, 1, 12, tzinfo=UTC)
    return {"id": 1, "price": Decimal("250.5"), "at": moment, "tags": ("a",)} | how


EQUAL = {
    "a Decimal with a zero at its end": {"price": Decimal("250.50")},
    "a Decimal with an exponent": {"price": Decimal("2505E-1")},
    "a moment in another zone": {"at": datetime(2031, 5, 1, 14, tzinfo=timezone(timedelta(hours=2)))},
    "a list for a tuple": {"tags": ["a"]},
    "a zero with a sign": {"rate": -0.0},
}


@pytest.mark.parametrize("kind", [Priced, PricedModel])
@pytest.mark.parametrize("way", EQUAL)
def test_inputs_are_compared_by_value_and_kept_as_they_were_given(bench, kind, way):
    """
    INVARIANT: equal inputs are one input.

    Breaks if the texts of Decimals or moments decide: 250.5 and 250.50 are equal in Python.
    """
    flow, _ = declared(bench, kind)
    first = flow.enqueue(**priced())
    second = flow.enqueue(**priced(**EQUAL[way]))
    kept = flow.enqueue(**priced(**EQUAL[way]) | {"id": 2}).view.input

    assert first.id == second.id
    assert flow.input_type.load(kept) == flow.input_type.check(priced(**EQUAL[way]) | {"id": 2})
    with pytest.raises(KeyConflict, match=r"price was '250.5', is '250.51'"):
        flow.enqueue(**priced(price=Decimal("250.51")))


def test_a_decimal_of_any_length_is_compared_whole_and_quickly(laptop):
    flow, _ = declared(laptop, Priced)
    long = "1." + "0" * 40 + "1"
    flow.enqueue(**priced(price=Decimal(long)))
    huge = flow.enqueue(**priced(id=2, price=Decimal("1E+999999")))

    with pytest.raises(KeyConflict):
        flow.enqueue(**priced(price=Decimal(long + "1")))
    assert huge.id == flow.enqueue(**priced(id=2, price=Decimal("10E+999998"))).id


def test_a_door_without_the_application_knows_the_run_after_a_deploy_too(bench):
    key = {"key": "{id}"}
    old = bench.flow("order", First, **key)

    @old.phase
    def ship(ctx):
        """Nothing."""

    run = old.enqueue(**BEFORE)
    new = bench.flow("order", Added, **key)
    new.phases.update(old.phases)
    again = bench.outside(new).new_run(BEFORE, Options(), project=bench.config.project)
    found = make_runs(bench.ledger, Enqueue([again]))[0]

    assert (run.id, False) == (found.run_id, found.created)
