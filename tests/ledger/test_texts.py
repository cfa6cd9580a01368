"""Any key, input, result and error that the words allow goes through both databases unchanged."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runclaim.errors import KeyConflict
from runclaim.keys import MAX_KEY_BYTES, clip, run_key
from runclaim.ledger import read
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import Failure, Verdict, fail
from tests.ledger.factories import NOTHING, WORKER, claim_again, claimed_run, finish, new_run, queued_run

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
#: What `dump_json` lets through, less numbers that PostgreSQL writes back as whole ones too long for a float.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
NUMBER = st.integers(-(10**15), 10**15) | st.floats(-1e15, 1e15)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
KEY = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)


@QUICK
@given(KEY)
def test_any_key_finds_its_own_run(conn, text):
    run_id = enqueue(conn, [new_run(run_key([text]), subject=text)])[0].run_id
    again = enqueue(conn, [new_run(run_key([text]), subject=text)])[0]

    assert again.run_id == run_id
    assert (read.run(conn, run_id).key, read.run(conn, run_id).subject) == (text, text)


def test_a_key_of_the_greatest_length_fits_every_index(conn):
    """Also one that does not compress: PostgreSQL refuses index rows above 8191 bytes."""
    text = "".join(chr(0x4E00 + number * 37 % 20_000) for number in range(MAX_KEY_BYTES // 3))

    assert read.run(conn, queued_run(conn, text, subject=text)).key == text


@QUICK
@given(JSON)
def test_any_input_and_result_comes_back_as_it_went(conn, value):
    claim = claimed_run(conn, input={"value": value})
    finish(conn, claim, result=json.dumps(value))

    assert {"value": value} == claim.input
    assert {"value": value} == read.run(conn, claim.run_id).input
    assert {"plan": value} == read.results(conn, claim.run_id)


@QUICK
@given(st.text(max_size=3000))
def test_any_error_can_be_recorded_once_it_is_clipped(conn, text):
    claim = claim_again(conn, queued_run(conn))
    fail(conn, [Failure(claim, {"message": clip(text)}, Verdict.FAIL, NOTHING, WORKER)])

    assert {"message": clip(text)} == read.run(conn, claim.run_id).error


@QUICK
@given(JSON, JSON)
def test_a_key_names_its_run_exactly_if_the_input_is_the_same(conn, one, other):
    """
    INVARIANT: the same key with another input is never silently the old run.

    Breaks if the fingerprint is not compared, or says the same for two inputs.
    """
    first = new_run(input={"value": one})
    second = new_run(first.key, input={"value": other})
    enqueue(conn, [first])

    if json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True):
        assert enqueue(conn, [second])[0].run_id == first.run_id
    else:
        with pytest.raises(KeyConflict):
            enqueue(conn, [second])
