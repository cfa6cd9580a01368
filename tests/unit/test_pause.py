"""The pauses of a wait: short at first, never longer than what is left, and right under a clock that is frozen."""

from __future__ import annotations

import pytest

from runclaim import pause
from runclaim.pause import Pauses


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still, as some tests of applications have it."""
    monkeypatch.setattr(pause.time, "monotonic", lambda: 100.0)


def test_pauses_grow_by_half_up_to_the_longest(frozen):
    pauses = Pauses(first=0.1, longest=0.3)

    assert [0.1, 0.15, 0.225, 0.3, 0.3] == pytest.approx([pauses.next() for _ in range(5)])


def test_pauses_are_short_again_once_something_has_moved(frozen):
    pauses = Pauses(first=0.1, longest=0.3)
    grown = [pauses.next() for _ in range(4)][-1]
    pauses.restart()

    assert (0.3, 0.1) == (grown, pauses.next())


@pytest.mark.parametrize("seconds", [0.0, 0.04, 0.05, 1.0, 7.3])
def test_the_pauses_of_a_wait_are_as_long_as_the_wait(frozen, seconds):
    """
    INVARIANT: a wait ends after its time, also where the clock stands still.

    Breaks if only the clock is asked, or a last pause goes past the end.
    """
    pauses = Pauses(seconds)
    slept = [each for each in (pauses.next() for _ in range(100)) if each is not None]

    assert pytest.approx(seconds) == sum(slept)
    assert len(slept) < 100


def test_time_that_passed_without_a_pause_counts(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(pause.time, "monotonic", lambda: clock[0])
    pauses = Pauses(1.0, first=0.4)
    clock[0] = 100.9
    left = pauses.next()
    clock[0] = 101.0

    assert (pytest.approx(0.1), None) == (left, pauses.next())
