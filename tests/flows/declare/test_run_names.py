"""Run keys: which inputs are one run, and which texts are no key."""

from __future__ import annotations

from typing import TypedDict

import pytest

from runclaim.errors import InputError
from tests.harness.bench import Bench, PullRequest


class Pair(TypedDict, total=False):
    a: str
    b: str


def test_two_inputs_whose_keys_read_the_same_are_two_runs(laptop: Bench):
    """
    INVARIANT: a key is identified by its parts, not by how they read in a row.

    Breaks if the hash is taken of the joined text: ("a", "b:c") and ("a:b", "c") become one run.
    """
    flow = laptop.flow("pairs", Pair, key="{a}:{b}")
    one, other = flow.key_of({"a": "x", "b": "y:z"}), flow.key_of({"a": "x:y", "b": "z"})

    assert one.text == other.text
    assert one.hash != other.hash


def test_a_key_may_be_a_function_of_the_input(laptop: Bench):
    flow = laptop.flow(key=lambda pull: f"{pull.repo}/{pull.number:04}", subject=lambda pull: pull.repo)
    pull = PullRequest("acme/app", 7)

    assert ("acme/app/0007", "acme/app") == (flow.key_of(pull).text, flow.subject_of(pull))


def test_a_flow_without_a_subject_gives_its_runs_none(laptop: Bench):
    assert laptop.flow().subject_of(PullRequest("acme/app", 7)) is None


BAD_KEYS = {
    "empty": ("", "key: is empty"),
    "too long": ("é" * 257, "key: has 514 bytes, at most 512 fit; hash the long part"),
    "a line break": ("a\nb", "key: contains the character '\\n'; use printable text"),
    "a control of C1": ("a\x9bb", "key: contains the character '\\x9b'; use printable text"),
    "a separator of lines": ("a\u2028b", "key: contains the character '\\u2028'; use printable text"),
    "what turns the direction": ("a\u202eb", "key: contains the character '\\u202e'; use printable text"),
    "NUL": ("a\x00", "key: contains the character '\\x00'; use printable text"),
    "a lone surrogate": ("\ud83d", "key: contains the character '\\ud83d'; use printable text"),
    "no text": (7, "key: the key function of flow review returned 7; return text"),
}


@pytest.mark.parametrize("kind", BAD_KEYS)
def test_a_text_that_is_no_key_is_refused(laptop: Bench, kind):
    text, expected = BAD_KEYS[kind]
    flow = laptop.flow(key=lambda _pull: text)

    with pytest.raises(InputError) as refused:
        flow.key_of(PullRequest("acme/app", 7))
    assert expected == str(refused.value)


def test_a_subject_has_the_limits_of_a_key(laptop: Bench):
    flow = laptop.flow(subject=lambda pull: pull.repo)

    assert "é" * 256 == flow.subject_of(PullRequest("é" * 256, 7))
    with pytest.raises(InputError, match="subject: has 514 bytes, at most 512 fit"):
        flow.subject_of(PullRequest("é" * 257, 7))


def test_a_field_that_is_missing_cannot_make_a_key(laptop: Bench):
    flow = laptop.flow("pairs", Pair, key="{a}:{b}")

    with pytest.raises(InputError, match="b: is missing, but the key contains it"):
        flow.key_of({"a": "x"})


def test_a_field_that_is_no_text_cannot_make_a_key(laptop: Bench):
    flow = laptop.flow("pairs", Pair, key="{a}")

    with pytest.raises(InputError, match=r"a: is None; a key takes text and numbers \(pass a function as the key\)"):
        flow.key_of({"a": None})  # type: ignore[typeddict-item]
