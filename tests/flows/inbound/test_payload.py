"""Payloads of webhooks: whatever a sender writes, the answer names the place that does not fit, and no text of it."""

from __future__ import annotations

import gc
import json
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runclaim.errors import InputError
from runclaim.flows.inbound.payload import mapped, payload_of

FORM = "application/x-www-form-urlencoded"
CANARY = "ghp_" + "Ab3" * 12


def mapping(delivery: Any) -> tuple[Any, ...]:
    payload = delivery.payload
    names = [label["name"] for label in payload["labels"]]
    number = int(payload["pull_request"]["number"])
    return payload["pull_request"]["head"]["repo"]["full_name"], number, payload["action"].lower(), names


def whole() -> dict[str, Any]:
    return {
        "action": "Opened",
        "labels": [{"name": "bug"}],
        "pull_request": {"number": "7", "head": {"repo": {"full_name": "acme/app"}}},
    }


def changed(payload: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *steps, last = path.split(".")
    place: Any = payload
    for step in steps:
        place = place[step]
    place[last] = value
    return payload


def made(payload: Any) -> Any:
    return mapped(mapping, SimpleNamespace(payload=payload))


@pytest.mark.parametrize(
    "path, value, place",
    [
        ("pull_request.head.repo", None, "pull_request.head.repo.full_name"),
        ("pull_request.head", [], "pull_request.head.repo"),
        ("pull_request", None, "pull_request"),
        ("pull_request", [1], "pull_request"),
        ("pull_request", CANARY, "pull_request"),
        ("pull_request.number", CANARY, "pull_request.number"),
        ("pull_request.number", None, "pull_request.number"),
        ("pull_request.number", {}, "pull_request.number"),
        ("action", [], "action"),
        ("action", None, "action"),
        ("labels", None, "labels"),
        ("labels", [None], "name"),
        ("labels", [{}], "name"),
        ("labels", 7, "labels"),
    ],
)
def test_what_a_mapping_cannot_read_is_told_by_its_place_and_not_by_its_text(path: str, value: Any, place: str):
    """
    INVARIANT: a signed delivery of an odd shape is the sender's mistake, and its text is in no error.

    Breaks if the mapping's own KeyError or TypeError gets through, or is kept as the cause.
    """
    with pytest.raises(InputError) as refused:
        made(changed(whole(), path, value))

    assert place in f"{refused.value.field}"
    assert CANARY not in str(refused.value)
    assert (None, None) == (refused.value.__cause__, refused.value.__context__ and refused.value.__cause__)


@pytest.mark.parametrize("payload", [None, [], "text", 7, True, [whole()]])
def test_a_payload_that_is_no_object_is_the_senders_mistake(payload: Any):
    with pytest.raises(InputError):
        made(payload)


def test_an_error_from_deeper_than_the_mappings_module_is_the_applications():
    def reads_settings(_delivery: Any) -> None:
        json.loads("{")

    with pytest.raises(json.JSONDecodeError):
        mapped(reads_settings, SimpleNamespace(payload={}))


def test_an_input_that_the_mapping_itself_refuses_is_refused_in_its_words():
    def refuses(_delivery: Any) -> None:
        raise InputError("number", "is odd")

    with pytest.raises(InputError, match="number: is odd"):
        mapped(refuses, SimpleNamespace(payload={}))


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8", FORM.upper()])
def test_a_form_with_the_field_payload_is_read(content_type: str):
    payload = {"a": "ü & = %", "b": [1]}

    assert payload == payload_of(urlencode({"payload": json.dumps(payload)}).encode(), content_type)


@pytest.mark.parametrize(
    "body",
    [b"", b"a=1", b"payload=1&payload=2", b"payload", b"%ff", b"\xff", b"&" * 1000, urlencode({"p": "{}"}).encode()],
)
def test_another_form_says_what_to_choose(body: bytes):
    with pytest.raises(
        InputError, match=r"body: is form-encoded .*; choose application/json where you configure the webhook"
    ):
        payload_of(body, FORM)


@pytest.mark.parametrize("body", [b"payload={", b"payload=%00", b"payload=[NaN]"])
def test_a_form_whose_payload_is_not_json_is_refused(body: bytes):
    with pytest.raises(InputError, match="not JSON"):
        payload_of(body, FORM)


@given(st.binary(max_size=200), st.sampled_from(["", "application/json", FORM, "text/plain", "\x00"]))
def test_only_an_input_error_ever_leaves_a_payload(body: bytes, content_type: str):
    try:
        payload_of(body, content_type)
    except InputError as refused:
        assert refused.field  # noqa: PT017 - any other error fails the test


def test_a_field_given_twice_among_many_costs_in_proportion_to_their_number():
    """Breaks if each name is compared with each other: the senders are strangers until their signature is checked."""

    def cost(many: int) -> float:
        # The last name is the one that comes twice, so that all of them are looked at.
        body = json.dumps(dict.fromkeys(map(str, range(many)), 0))[:-1].encode() + f', "{many - 1}": 1}}'.encode()
        gc.disable()
        try:
            began = time.process_time()
            with pytest.raises(InputError, match="occurs twice"):
                payload_of(body, "")
            return time.process_time() - began
        finally:
            gc.enable()

    assert min(cost(80_000) for _ in range(3)) < 9 * min(cost(20_000) for _ in range(3)), "16 times would be quadratic"
