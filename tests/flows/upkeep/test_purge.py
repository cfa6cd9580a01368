"""Purging: batches that fit into the time they may hold their locks for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from runclaim.database import Database
from runclaim.flows.upkeep import purge as purging
from runclaim.flows.upkeep.purge import AIM, end_unused_subjects, in_batches, next_size, purge_all
from runclaim.models import subjects
from runclaim.states import TERMINAL
from tests.harness.bench import NO_WAIT
from tests.harness.ledgers import migrate
from tests.ledger.factories import queued_runs, succeeded_run
from tests.ledger.sql import count

LONG = timedelta(minutes=1)


@pytest.fixture
def database(database_url: str):
    """Of this release, without runs."""
    found = Database(database_url, patience=NO_WAIT)
    migrate(found)
    yield found
    found.close()


@given(st.integers(10, 500), st.timedeltas(timedelta(0), LONG))
def test_the_next_batch_has_from_ten_to_five_hundred_and_at_most_twice_as_many(size, took):
    assert 10 <= next_size(size, took) <= min(2 * size, 500)


@given(st.integers(10, 500), st.floats(0.0001, 0.1))
def test_a_database_of_a_steady_speed_is_never_held_for_longer_than_aimed_at(first, seconds_a_run):
    """
    INVARIANT: whatever the speed, a batch of more than ten runs fits into the aim once the speed is known.

    Breaks if the size is rounded up, or grows past what fits.
    """
    size = next_size(first, first * timedelta(seconds=seconds_a_run))

    assert 10 == size or size * timedelta(seconds=seconds_a_run) <= AIM + timedelta(microseconds=size)


def test_batches_grow_to_what_fits_and_shrink_at_once_when_the_database_slows_down():
    sizes, size = [], 20
    for milliseconds_a_run in (0.1, 0.1, 0.1, 0.1, 0.1, 1, 1):
        size = next_size(size, size * timedelta(milliseconds=milliseconds_a_run))
        sizes.append(size)

    assert [40, 80, 160, 250, 250, 25, 25] == sizes


def test_batches_are_made_until_one_is_not_full(database):
    left, limits = 70, []

    def verb(_conn, limit):
        nonlocal left
        limits.append(limit)
        gone = min(limit, left)
        left -= gone
        return gone

    assert 70 == in_batches(database, verb)
    assert 20 == limits[0]
    assert 0 == left
    assert sum(limits) > 70


def test_others_can_write_to_a_file_for_half_of_the_time(database, monkeypatch):
    """
    INVARIANT: a purge of a long history stops nobody's heartbeat on SQLite.

    Breaks if batch follows batch: who waits for the file's lock finds it free once in many looks.
    """
    pauses, left = [], [20, 40, 80, 0]
    monkeypatch.setattr(purging.time, "sleep", pauses.append)

    in_batches(database, lambda _conn, limit: min(limit, left.pop(0)))

    assert len(pauses) == (3 if database.url.get_backend_name() == "sqlite" else 0)
    assert all(pause > 0 for pause in pauses)


def test_all_that_is_past_its_retention_goes_and_then_the_keys_of_what_is_gone(database):
    for _ in range(3):
        with database.begin() as conn:
            for _ in range(9):
                succeeded_run(conn, keep_key=timedelta(0))
            queued_runs(conn, 2)

    assert 27 == purge_all(database, dict.fromkeys(TERMINAL, timedelta(0)))
    with database.read() as conn:
        assert {"runs": 6, "run_keys": 6, "events": 6} == {
            table: count(conn, table) for table in ("runs", "run_keys", "events")
        }


def test_what_an_earlier_release_left_of_subjects_goes_and_a_subject_with_a_run_stays(database):
    with database.begin() as conn:
        succeeded_run(conn, subject="ended")
        queued_runs(conn, 1, subject="live")
        conn.exec_driver_sql(
            "INSERT INTO runclaim_subjects (project, flow, subject, generation) VALUES ('default', 'review', 'gone', 7)"
        )
    end_unused_subjects(database)

    with database.read() as conn:
        assert ["ended", "live"] == sorted(conn.execute(select(subjects.c.subject)).scalars())
