"""The dedup window on both databases: one atomic upsert decides, exactly at the boundary too."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runclaim.keys import uuid7
from runclaim.ledger.doors.dedup_windows import Sighting, first_sighting, forget, seen_run
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from runclaim.database import Database
    from tests.ledger.clock import Clock

WINDOW = timedelta(seconds=10)


def sighting(what: str = "a") -> Sighting:
    return Sighting("default/github/payload", what * 64, WINDOW)


def sees(database: Database, *what: str, run_id: str | None = None) -> bool:
    return database.run(lambda conn: first_sighting(conn, [sighting(each) for each in what], run_id or uuid7()))


@pytest.mark.parametrize("after,is_new", [(timedelta(seconds=9.999), False), (WINDOW, True), (2 * WINDOW, True)])
def test_a_window_ends_exactly_when_it_says(database: Database, clock: Clock, after: timedelta, is_new: bool):
    """
    INVARIANT: the same again is dropped until the window of the first has passed, and not a moment longer.

    Breaks if windows are fixed buckets of time, or if the upsert compares with `<` for `<=`.
    """
    assert sees(database, "a")
    clock.advance(after)
    assert is_new is sees(database, "a")


def test_a_repetition_does_not_lengthen_the_window(database: Database, clock: Clock):
    assert sees(database, "a")
    clock.advance(timedelta(seconds=6))
    assert not sees(database, "a")
    clock.advance(timedelta(seconds=4))
    assert sees(database, "a")


def test_one_of_several_sightings_that_is_not_new_is_enough(database: Database):
    assert sees(database, "a")
    assert not sees(database, "b", "a")


def test_a_sighting_tells_whose_it_was(database: Database):
    first = uuid7()
    sees(database, "a", run_id=first)

    with database.read() as conn:
        assert first == seen_run(conn, [sighting("a")])
        assert seen_run(conn, [sighting("b")]) is None


def test_of_32_simultaneous_sightings_one_is_the_first(database: Database):
    """INVARIANT: one transaction decides. Breaks if the window is read first and written later."""
    assert [True] == [answer for answer in together(32, lambda _: sees(database, "a")) if answer]


def test_a_sighting_that_rolls_back_never_was(database: Database):
    with database.begin() as conn:
        assert first_sighting(conn, [sighting()], uuid7())
        conn.rollback()

    assert sees(database, "a")


def test_closed_windows_are_forgotten_and_open_ones_kept(database: Database, clock: Clock):
    sees(database, "a")
    clock.advance(timedelta(seconds=5))
    sees(database, "b")
    clock.advance(timedelta(seconds=5))

    assert 1 == database.run(forget)
    assert 0 == database.run(forget)
    assert not sees(database, "b")


def test_one_call_forgets_at_most_its_limit(database: Database, clock: Clock):
    for what in "abc":
        sees(database, what)
    clock.advance(WINDOW)

    assert [2, 1] == [database.run(lambda conn: forget(conn, limit=2)) for _ in range(2)]
