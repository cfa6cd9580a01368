"""The words of keys.py: what identifies a run, and which texts both databases take."""

from __future__ import annotations

import json
import re
import uuid
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runclaim import keys
from runclaim.errors import DeclarationError, InputError
from runclaim.keys import MAX_ERROR_BYTES, MAX_KEY_BYTES, Template, clip, dump_json, fingerprint, run_key

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60)


@given(st.lists(PRINTABLE, min_size=1, max_size=5), st.lists(PRINTABLE, min_size=1, max_size=5))
def test_two_keys_are_one_exactly_if_their_parts_are(one, other):
    """
    INVARIANT: parts that read the same when they are joined are still told apart.

    Breaks if parts are hashed without their lengths.
    """
    assert (run_key(one).hash == run_key(other).hash) == (one == other)


def test_a_key_is_hashed_whole():
    """SHA-256 of each part's length in four bytes and the part; 64 hex digits, none cut off."""
    assert run_key(["a", "bé"]) == keys.RunKey(
        "abé", "17a6bbaf21a0c5fc4a00848a9de2fd2fd367ff8493e49f3daea3cb13de5ab1e3"
    )


def test_letters_that_look_alike_make_two_keys():
    """Bytes decide: nothing is folded or normalised."""
    assert run_key(["\u00e9"]).hash != run_key(["e\u0301"]).hash


def refused_by(check, *arguments):
    """The field that a check names when it refuses, or `None`."""
    try:
        check(*arguments)
    except InputError as refused:
        return refused.field
    return None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=600))
def test_a_key_is_taken_as_it_is_or_refused_by_name(text):
    steers = {*map(chr, (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)))}
    is_printable = steers.isdisjoint(text)
    if 0 < len(text.encode()) <= MAX_KEY_BYTES and is_printable:
        assert run_key([text]).text == text
    else:
        assert "key" == refused_by(run_key, [text])


@pytest.mark.parametrize("size, fits", [(MAX_KEY_BYTES, True), (MAX_KEY_BYTES + 1, False)])
@pytest.mark.parametrize("letter", ["a", "é"])
def test_the_limit_of_a_key_is_in_bytes(letter, size, fits):
    text = (letter * size)[: size // len(letter.encode())] + "a" * (size % len(letter.encode()))
    if fits:
        assert run_key([text]).text == text
    else:
        with pytest.raises(InputError, match=f"has {size} bytes, at most {MAX_KEY_BYTES} fit"):
            run_key([text])


@pytest.mark.parametrize("name", ["review", "a", "Review_2.b-c", "a" * 100])
def test_a_plain_name_is_taken(name):
    assert keys.check_name("flow", name) == name


@pytest.mark.parametrize("name", ["", "2nd", "_a", "a b", "a/b", "é", "a\n", "a" * 101])
def test_any_other_name_is_refused(name):
    with pytest.raises(DeclarationError, match="letters, digits"):
        keys.check_name("flow", name)


def test_a_template_keeps_its_literals_and_values_apart():
    template = Template("{repo}:pr-{number}", ["repo", "number"], what="key")

    assert ["", "acme", ":pr-", "7"] == template.parts({"repo": "acme", "number": 7})


@pytest.mark.parametrize(
    "text, said",
    [
        ("{rep}", r"\{rep\} is not a field of the input; it has repo, number"),
        ("{}", r"\{\} is not a field"),
        ("{repo:>9}", "between the braces"),
        ("{repo!r}", "between the braces"),
        ("{repo.owner}", "is not a field"),
        ("{repo", "is not a valid template"),
        ("always the same", "every input would be the same run"),
    ],
)
def test_a_mistaken_template_is_refused_when_it_is_declared(text, said):
    with pytest.raises(DeclarationError, match=said):
        Template(text, ["repo", "number"], what="key")


@given(JSON)
def test_json_comes_back_as_it_went_or_is_refused_by_place(value):
    if re.search(r"[\x00\ud800-\udfff]", str(flat(value))):
        assert refused_by(dump_json, "input", value).startswith("input")
    else:
        assert json.loads(dump_json("input", value)) == value


def flat(value):
    """All texts of a JSON value, in one."""
    if isinstance(value, dict):
        return "".join(flat(name) + flat(item) for name, item in value.items())
    if isinstance(value, list):
        return "".join(map(flat, value))
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(
    "value, field",
    [
        ({"a": {"b": ["ok", "\x00"]}}, "input.a.b[1]"),
        ({"a": "\ud800"}, "input.a"),
        ({"\x00": 1}, "input"),
        ({"a": [float("nan")]}, "input.a[0]"),
        ({"a": float("inf")}, "input.a"),
        ({"a": object()}, "input"),
        ({"a": {1, 2}}, "input"),
    ],
)
def test_what_no_database_takes_is_refused_with_its_place(value, field):
    with pytest.raises(InputError) as refused:
        dump_json("input", value)
    assert refused.value.field == field


def test_text_that_only_spells_an_escape_is_taken():
    value = {"path": "C:\\u0000", "emoji": "\U0001f600"}

    assert json.loads(dump_json("input", value)) == value


def test_a_value_that_contains_itself_is_refused():
    value = {}
    value["again"] = [value]

    with pytest.raises(InputError, match="Circular"):
        dump_json("input", value)


def test_a_value_that_is_too_deep_is_refused():
    value = []
    for _ in range(100_000):
        value = [value]

    with pytest.raises(InputError, match="is not JSON"):
        dump_json("input", value)


@pytest.mark.parametrize("letter, bytes_", [("a", 1), ("é", 2), ("\U0001f600", 4)])
def test_the_limit_of_json_is_in_bytes_of_the_text(letter, bytes_):
    fits = letter * ((100 - 2) // bytes_)

    assert json.loads(dump_json("input", fits, cap=100)) == fits
    with pytest.raises(InputError, match="at most 100 fit"):
        dump_json("input", fits + letter * 2, cap=100)


def test_a_fingerprint_does_not_depend_on_the_order_of_fields():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"})


@given(st.text(max_size=400), st.integers(80, 300))
def test_a_clipped_text_fits_and_both_databases_take_it(text, cap):
    found = clip(text, cap)

    assert len(found.encode()) <= cap
    assert "\x00" not in found
    assert dump_json("error", found)


def test_a_long_error_keeps_its_head_and_its_tail_and_says_what_is_missing():
    found = clip("head" + "é" * MAX_ERROR_BYTES + "tail")

    assert found.startswith("head")
    assert found.endswith("tail")
    assert "bytes cut" in found


def test_identifiers_are_versioned_and_sort_by_their_time():
    made = [keys.uuid7() for _ in range(2000)]
    stamps = [uuid.UUID(each).int >> 80 for each in made]

    assert 2000 == len(set(made))
    assert {7} == {uuid.UUID(each).version for each in made}
    assert {uuid.RFC_4122} == {uuid.UUID(each).variant for each in made}
    assert all(before <= after for before, after in pairwise(stamps))


def test_a_nonce_is_never_the_same():
    assert 1000 == len({keys.nonce() for _ in range(1000)})
    assert 32 == len(keys.nonce())
