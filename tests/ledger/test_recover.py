"""recover: a run with a given id is inserted, or nothing is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from runclaim.errors import RunExists
from runclaim.ledger import read
from runclaim.ledger.enqueue import Enqueued, enqueue, insert_runs
from runclaim.ledger.purge import purge
from runclaim.ledger.recover import _is_taken_id, recover, recovered
from runclaim.states import TERMINAL, RunState
from tests.ledger.concurrency import Actor, blocked, together
from tests.ledger.factories import canceled_run, new_run, queued_run, succeeded_run
from tests.ledger.sql import count

DAY = timedelta(days=1)
ID = "0195c0de-0000-7000-8000-000000000007"


def state_of_tables(conn):
    return {table: count(conn, table) for table in ("runs", "run_keys", "subjects", "events")}


def test_a_run_is_inserted_under_its_given_id(conn):
    run = new_run("pr-7", run_id=ID, subject="acme")

    assert recover(conn, run, nonce="n") == Enqueued(ID, created=True)
    view = read.run(conn, ID)
    assert ("pr-7", "acme", 0, RunState.QUEUED) == (view.key, view.subject, view.rerun, view.state)
    assert [Enqueued(ID, created=False)] == enqueue(conn, [new_run("pr-7")])


def test_it_supersedes_the_older_run_of_its_subject(conn):
    older = queued_run(conn, subject="acme")
    recover(conn, new_run("pr-7", subject="acme"), nonce="n")

    assert read.run(conn, older).state is RunState.SUPERSEDED


def test_an_id_that_is_taken_is_refused_and_nothing_is_written(conn):
    """
    INVARIANT: a recovery only ever inserts.

    Breaks if it finds a run as an enqueue does.
    """
    queued_run(conn, "pr-6", run_id=ID)
    before = state_of_tables(conn)

    with pytest.raises(RunExists) as refused:
        recover(conn, new_run("pr-7", run_id=ID, subject="acme"), nonce="n")
    assert (ID, ID, "queued") == (refused.value.run_id, refused.value.found, refused.value.state)
    assert (refused.value.key, state_of_tables(conn)) == ("pr-6", before)
    assert f"run {ID} was not enqueued: there is already run {ID} (it is queued)" == str(refused.value)


@pytest.mark.parametrize("other", [{}, {"input": {"number": 8}}])
def test_a_key_that_has_a_run_is_refused_whatever_its_input(conn, other):
    holder = succeeded_run(conn, "pr-7")
    before = state_of_tables(conn)

    with pytest.raises(RunExists) as refused:
        recover(conn, new_run("pr-7", run_id=ID, **other), nonce="n")
    assert (refused.value.found, refused.value.state, state_of_tables(conn)) == (holder, "succeeded", before)
    assert f"another run, {holder}, of the key 'pr-7'" in str(refused.value)


def test_the_tombstone_of_a_purged_run_is_refused_until_it_expires(conn, clock):
    """
    INVARIANT: a run that was done and purged is not done again by its recovery.

    Breaks if a recovery looks for the run alone and not for its key.
    """
    succeeded_run(conn, "pr-7", run_id=ID, keep_key=60 * DAY)
    clock.advance(31 * DAY)
    purge(conn, dict.fromkeys(TERMINAL, 30 * DAY))

    with pytest.raises(RunExists, match="it was purged") as refused:
        recover(conn, new_run("pr-7", run_id=ID), nonce="n")
    clock.advance(30 * DAY)

    assert refused.value.state is None
    assert recover(conn, new_run("pr-7"), nonce="n").created


def test_only_the_call_that_made_the_run_reads_it_back(conn):
    run = new_run("pr-7", run_id=ID)
    before = recovered(conn, run, nonce="mine")
    made = recover(conn, run, nonce="mine")

    assert before is None
    assert recovered(conn, run, nonce="mine") == made
    assert recovered(conn, run, nonce="another") is None


def test_a_run_that_was_enqueued_is_read_back_by_no_recovery(conn):
    run = new_run("pr-7")
    enqueue(conn, [run])

    assert recovered(conn, run, nonce="mine") is None


def attempt(database, run, nonce="n"):
    try:
        return database.run(lambda conn: recover(conn, run, nonce=nonce)).created
    except RunExists:
        return False


@pytest.mark.parametrize("key_of", [lambda _: "pr-7", lambda number: f"pr-{number}"], ids=["one key", "many keys"])
def test_16_recoveries_of_one_id_at_once_make_one_run_and_refuse_15(database, key_of):
    """
    INVARIANT: an id is inserted once, also under two keys in the same millisecond, and nobody sees another error.

    Breaks if the primary key's refusal is not told as RunExists.
    """
    found = together(16, lambda number: attempt(database, new_run(key_of(number), run_id=ID)))

    assert 1 == sum(found)
    with database.read() as conn:
        assert {"runs": 1, "run_keys": 1, "subjects": 0, "events": 1} == state_of_tables(conn)


def test_the_primary_keys_refusal_of_an_id_that_comes_at_the_same_moment_is_told_as_such(postgres):
    """It is the second guard: the look before sees committed runs only."""
    with Actor(postgres) as one, Actor(postgres) as other:
        one.do(lambda conn: recover(conn, new_run("pr-7", run_id=ID), nonce="one"))
        waiting = blocked(postgres, other, lambda conn: recover(conn, new_run("pr-8", run_id=ID), nonce="other"))
        one.commit()

        with pytest.raises(RunExists):
            waiting.result(20)
        other.roll_back()


def test_an_enqueue_and_a_recovery_of_one_key_at_once_make_one_run(database):
    def work(number):
        if number % 2:
            return attempt(database, new_run("pr-7"))
        return database.run(lambda conn: enqueue(conn, [new_run("pr-7")]))[0].created

    assert 1 == sum(together(16, work))
    with database.read() as conn:
        assert 1 == conn.execute(text("SELECT count(*) FROM runclaim_runs")).scalar_one()


def test_the_primary_keys_refusal_is_known_by_its_code(conn):
    """INVARIANT: errors are told apart by code and constraint. Breaks if any refused row is taken for a taken id."""
    run = new_run()
    enqueue(conn, [run])
    with pytest.raises(IntegrityError) as taken, conn.begin_nested():
        insert_runs(conn, [run])
    with pytest.raises(IntegrityError) as another, conn.begin_nested():
        insert_runs(conn, [new_run(max_attempts=-1)])

    assert _is_taken_id(taken.value)
    assert not _is_taken_id(another.value)


def test_a_key_that_has_expired_while_its_run_stands_is_nobodys_to_recover(conn):
    """
    INVARIANT: a key has one run, however long ago it expired.

    Breaks if an expired key is freed although its run is there.
    """
    held = queued_run(conn, "pr-7", keep_key=timedelta(0))

    with pytest.raises(RunExists) as refused:
        recover(conn, new_run("pr-7", run_id=ID), nonce="n")
    assert refused.value.found == held


def test_a_batch_with_a_free_key_takes_no_key_whose_run_stands(conn):
    """Breaks if one free key of a batch lets the expired keys beside it be freed too."""
    held = queued_run(conn, "pr-7", keep_key=timedelta(0))
    gone = canceled_run(conn, "pr-8", keep_key=timedelta(0))
    purge(conn, {RunState.CANCELED: timedelta(0)})
    first, second = enqueue(conn, [new_run("pr-7"), new_run("pr-8")])
    later = enqueue(conn, [new_run("pr-7")])[0]

    assert (later.run_id, later.created) == (held, False)
    assert (first.run_id, first.created) == (held, False)
    assert (True, True) == (second.run_id != gone, second.created)
    assert 2 == count(conn, "runs")
