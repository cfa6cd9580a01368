"""The OpenAPI document: what it says of every route, and that its examples are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from runclaim.api import create_app
from runclaim.api.problems import KINDS
from runclaim.config import Config

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
APP = create_app(Config(database_url="sqlite:///unused.db"))
DOCUMENT = APP.openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, found in DOCUMENT["paths"].items()
    for method, operation in found.items()
}


def resolved(schema):
    """With everything that it refers to beside it."""
    return schema | {"components": DOCUMENT["components"]}


def examples():
    for name, operation in OPERATIONS.items():
        for status, answer in operation["responses"].items():
            for kind, content in answer.get("content", {}).items():
                for code, example in content.get("examples", {}).items():
                    yield pytest.param(content["schema"], example["value"], id=f"{name} {status} {code} {kind}")
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for number, example in enumerate(schema.get("examples", [])):
            yield pytest.param(schema, example, id=f"{name} {number}")


def test_the_document_is_openapi_3_1():
    assert DOCUMENT["openapi"].startswith("3.1.")


@pytest.mark.parametrize("schema,example", list(examples()))
def test_every_example_fits_its_schema(schema, example):
    Draft202012Validator(resolved(schema)).validate(example)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_words_and_every_error_is_a_problem(name):
    operation = OPERATIONS[name]

    assert operation["summary"]
    assert operation["description"]
    for status, answer in operation["responses"].items():
        if int(status) >= 400 and (name, status) != ("GET /readyz", "503"):
            assert ["application/problem+json"] == list(answer["content"]), status
    assert {"400", "404", "405", "500", "503"} <= set(operation["responses"])
    if operation["security"]:
        assert {"401", "403", "429"} <= set(operation["responses"])


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_header_has_to_be_sent_but_the_token(name):
    parameters = OPERATIONS[name].get("parameters", [])

    assert [] == [each["name"] for each in parameters if each["in"] == "header" and each["required"]]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_route_is_on_the_page_with_its_scope(name):
    scopes = [scope for each in OPERATIONS[name]["security"] for scope in each["bearer"]] or ["nobody's"]
    row = next((line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")), "")

    assert f"`{scopes[0]}`" in row or ["nobody's"] == scopes
    assert row


def test_the_page_names_no_route_that_is_not_there():
    named = set(re.findall(r"^\| `((?:GET|POST|PUT|PATCH|DELETE) [^`]+)` \|", PAGE, re.MULTILINE))

    assert set(OPERATIONS) == named


@pytest.mark.parametrize("code", KINDS)
def test_every_code_of_a_problem_is_explained(code):
    assert f"| `{code}` | {KINDS[code].status} |" in PAGE
