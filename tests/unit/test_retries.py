"""How long a failed phase waits."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runclaim.retries import Backoff


def test_without_jitter_the_wait_grows_by_the_factor_up_to_the_ceiling():
    backoff = Backoff(first=timedelta(seconds=2), factor=3, ceiling=timedelta(seconds=50), jitter=False)

    assert [2, 6, 18, 50, 50] == [backoff.delay(attempt).total_seconds() for attempt in range(1, 6)]


@given(st.integers(1, 10_000))
def test_with_jitter_the_wait_is_anything_up_to_that(attempt):
    full = Backoff(jitter=False).delay(attempt)

    assert timedelta(0) <= Backoff().delay(attempt) <= full


def test_runs_that_failed_together_do_not_come_back_together():
    """
    INVARIANT: a hundred failures at once are a hundred different waits.

    Breaks if the jitter is dropped.
    """
    assert len({Backoff().delay(5) for _ in range(100)}) > 90


@pytest.mark.parametrize("factor", [1.0, 2.0, 1e9, 1e300])
@pytest.mark.parametrize("attempt", [1, 2, 1000, 10**9])
def test_no_attempt_waits_longer_than_the_ceiling(factor, attempt):
    backoff = Backoff(factor=factor, ceiling=timedelta(minutes=10), jitter=False)

    assert backoff.delay(attempt) <= timedelta(minutes=10)


def test_no_wait_is_a_wait_too():
    assert timedelta(0) == Backoff(first=timedelta(0)).delay(3)
