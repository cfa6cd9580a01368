"""Mistakes in a declaration are refused where they are made, with words that say what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, TypedDict

import pytest
from celery import Celery

from runclaim import Runclaim
from runclaim.errors import ConfigError, DeclarationError
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow

KEY = "{repo}:pr-{number}"


@pytest.fixture
def runs() -> Runclaim:
    return Runclaim(Celery("declared", broker="memory://", set_as_current=False))


@pytest.fixture
def review(runs: Runclaim) -> Flow[PullRequest]:
    return runs.flow("review", PullRequest, key=KEY)


class Custom:
    pass


@dataclass
class WithCustom:
    repo: str
    inner: dict[str, list[Custom]]


@dataclass
class WithReserved:
    session: str


class Loose(TypedDict, total=False):
    repo: str


MISTAKEN_FLOWS = {
    "a field that the input does not have": (
        {"key": "{repo}:{pr}"},
        "key '{repo}:{pr}': {pr} is not a field of the input; it has repo, number, base, head",
    ),
    "a key without a field": ({"key": "always"}, "key 'always' has no {field}, so every input would be the same run"),
    "an unclosed template": (
        {"key": "{repo"},
        "key '{repo' is not a valid template: expected '}' before end of string",
    ),
    "a conversion": ({"key": "{repo!r}"}, "key '{repo!r}': write only {repo} between the braces, or pass a function"),
    "a format": (
        {"key": "{number:04}"},
        "key '{number:04}': write only {number} between the braces, or pass a function",
    ),
    "an attribute": (
        {"key": "{repo.name}"},
        "key '{repo.name}': {repo.name} is not a field of the input; it has repo, number, base, head",
    ),
    "no field name": ({"key": "{}"}, "key '{}': {} is not a field of the input; it has repo, number, base, head"),
    "a key of another type": (
        {"key": 7},
        "the key of flow review must be text such as '{field}' or a function, not 7",
    ),
    "a subject of another type": (
        {"subject": 7},
        "the subject of flow review must be text such as '{field}' or a function, not 7",
    ),
    "a field that the subject does not have": (
        {"subject": "{pr}"},
        "subject '{pr}': {pr} is not a field of the input; it has repo, number, base, head",
    ),
    "a name that is none": (
        {"name": "my review"},
        "flow 'my review': use letters, digits and _ . - (a letter first, at most 100)",
    ),
    "an input that has no fields": (
        {"input_type": dict},
        "the input of a flow must be a dataclass, a TypedDict or a pydantic model, not <class 'dict'>",
    ),
    "an input that is a value": (
        {"input_type": PullRequest("a", 1)},
        (
            "the input of a flow must be a dataclass, a TypedDict or a pydantic model,"
            " not PullRequest(repo='a', number=1, base='a1', head='b2')"
        ),
    ),
    "a field without a JSON form": (
        {"input_type": WithCustom, "key": "{repo}"},
        (
            "WithCustom.inner: Custom has no JSON form; use text, numbers, lists, dicts, dates, dataclasses or pydantic"
            " models, defined where the module can see them at run time"
        ),
    ),
    "a field with the name of an argument": (
        {"input_type": WithReserved, "key": "{session}"},
        "WithReserved.session: enqueue has an argument of that name; rename it",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKEN_FLOWS)
def test_a_mistaken_flow_is_refused_with_words_that_help(runs, mistake):
    how, expected = MISTAKEN_FLOWS[mistake]
    given: dict[str, Any] = {"name": "review", "input_type": PullRequest, "key": KEY} | how

    with pytest.raises(DeclarationError) as refused:
        runs.flow(given.pop("name"), given.pop("input_type"), **given)
    assert expected == str(refused.value)


def test_a_second_flow_of_a_name_is_refused(runs, review):
    with pytest.raises(DeclarationError) as refused:
        runs.flow("review", PullRequest, key=KEY)
    assert re.fullmatch(
        rf"this app already has a flow review, declared in {__name__} \({re.escape(__file__)}:\d+\);"
        " give the second another name",
        str(refused.value),
    )


def test_a_second_attachment_to_one_application_is_refused(runs):
    with pytest.raises(DeclarationError) as refused:
        Runclaim(runs.app)
    assert "the Celery app declared already has a Runclaim; use that one everywhere" == str(refused.value)


def test_an_unknown_setting_is_refused(runs):
    with pytest.raises(
        ConfigError, match=r"unknown setting leese; the settings are database_url, schema, project, release, lease"
    ):
        _ = Runclaim(Celery("x", broker="memory://", set_as_current=False), leese="5s").config


class Colour(Enum):
    RED = "red"


class Shade(StrEnum):
    DARK = "dark"


@dataclass
class Painted:
    colour: Colour
    shade: Shade


def test_an_enum_in_a_key_is_its_value(runs):
    painted = runs.flow("paint", Painted, key="{colour}-{shade}")

    assert "red-dark" == painted.key_of(Painted(Colour.RED, Shade.DARK)).text
