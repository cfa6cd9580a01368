"""Typed results: recorded as JSON, read as they were declared, refused when they are neither."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

import pytest
from pydantic import BaseModel

from runclaim.errors import InputError
from runclaim.flows.declare.results import ResultType

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]


@dataclass
class Finding:
    path: str
    at: datetime


class Total(TypedDict):
    count: int


class Report(BaseModel):
    title: str
    at: datetime


A_TIME = datetime(2031, 5, 1, tzinfo=UTC)


def gives_findings(ctx: Any) -> list[Finding]: ...
def gives_total(ctx: Any) -> Total: ...
def gives_report(ctx: Any) -> Report: ...
def gives_nothing(ctx: Any) -> None: ...
def gives_maybe(ctx: Any) -> dict[str, Finding] | None: ...
def never_ends(ctx: Any) -> NoReturn: ...  # type: ignore[misc]
def says_nothing(ctx): ...
def knows_only_its_result(ctx: Unknown) -> list[Finding]: ...
def knows_nothing(ctx: Unknown) -> Unknown: ...
def gives_floats(ctx: Any) -> list[float]: ...


@functools.wraps(gives_findings)
def wrapped(ctx: Any) -> Any: ...


GOOD = {
    "a list of dataclasses": (gives_findings, [Finding("a.py", A_TIME)]),
    "a TypedDict": (gives_total, {"count": 2}),
    "a pydantic model": (gives_report, Report(title="t", at=A_TIME)),
    "nothing": (gives_nothing, None),
    "nothing where something may be": (gives_maybe, None),
    "something where nothing may be": (gives_maybe, {"x": Finding("a.py", A_TIME)}),
    "what nobody declared": (says_nothing, {"any": [1, "a", None]}),
    "what no run time knows": (knows_nothing, [1]),
    "a body that never returns": (never_ends, None),
    "a context that only a type checker knows": (knows_only_its_result, [Finding("a.py", A_TIME)]),
    "a decorated body": (wrapped, [Finding("a.py", A_TIME)]),
    "whole numbers where broken ones are declared": (gives_floats, [1, 2.5]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_result_is_read_as_it_was_declared(kind):
    body, value = GOOD[kind]
    its = ResultType(body, phase="review.plan")

    assert its.load(json.loads(its.dump(value))) == value


def test_a_skipped_phase_has_no_result_whatever_it_declares():
    assert ResultType(gives_findings, phase="review.plan").load(None) is None


BAD = {
    "an object": (says_nothing, object(), "the result of review.plan: is not JSON: Encoding objects of type object"),
    "NaN": (says_nothing, [float("nan")], "the result of review.plan[0]: is nan, which JSON does not have"),
    "NUL": (says_nothing, {"a": "\x00"}, "the result of review.plan.a: contains NUL or a lone surrogate"),
    "too much": (says_nothing, "a" * 300_000, "the result of review.plan: has 300,002 bytes of JSON, at most 262,144"),
    "another type": (
        gives_findings,
        ["a.py"],
        (
            "the result of review.plan: is not of type list[tests.flows.declare.test_results.Finding], which its"
            " phase declares: Expected `object`, got `str` - at `$[0]`"
        ),
    ),
    "nothing where something has to be": (
        gives_total,
        None,
        "the result of review.plan: is not of type Total, which its phase declares: Expected `object`, got `null`",
    ),
    "no model": (
        gives_report,
        {"title": "t"},
        "the result of review.plan: is not of type Report, which its phase declares: 1 vali",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_result_that_cannot_be_recorded_is_refused_in_its_own_phase(kind):
    body, value, expected = BAD[kind]

    with pytest.raises(InputError) as refused:
        ResultType(body, phase="review.plan").dump(value)
    assert expected == str(refused.value)[: len(expected)]


def test_a_result_that_no_longer_fits_its_declaration_is_told_when_it_is_read():
    with pytest.raises(InputError, match=r"is not of type Total, which its phase declares: Expected `int`, got `str`"):
        ResultType(gives_total, phase="review.plan").load({"count": "two"})
