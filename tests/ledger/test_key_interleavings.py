"""Every interleaving of what makes, counts and frees the runs of a key or a subject; see `test_interleavings`."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from functools import partial

from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.purge import purge, purge_keys
from runclaim.ledger.rerun import rerun
from runclaim.ledger.retry import retry
from runclaim.states import TERMINAL, RunState
from tests.ledger.factories import (
    canceled_run,
    failed_run,
    new_run,
    queued_run,
)
from tests.ledger.interleaving import interleavings
from tests.ledger.played import fresh_keys, live, make, played, script, state_of

NOW = timedelta(0)


def test_two_enqueues_of_one_key_make_one_run(db, level):
    """
    INVARIANT: one run a key, however many ask at once.

    Breaks if enqueue looks for the key before it inserts it, or takes an empty answer of ON CONFLICT for its end.
    """
    keys = fresh_keys()

    def scripts():
        key = next(keys)
        return [script(db, enqueue, [new_run(key)]) for _ in range(2)]

    for each in played(db, scripts):
        (one,), (other,) = each.answers

        assert one.run_id == other.run_id
        assert {True, False} == {one.created, other.created}


def test_a_rerun_and_a_retry_of_the_older_run_leave_one_run_of_the_key_alive(db, level):
    """
    INVARIANT: one live run a key.

    Breaks if a rerun decides by what it read of the older run, or retry does not look whether its key has moved on.
    """
    keys = fresh_keys()

    def scripts():
        key = next(keys)
        failed = make(db, failed_run, key).run_id
        return [script(db, rerun, [new_run(key)]), script(db, retry, failed), lambda: failed]

    for each in played(db, scripts):
        (made,), _, failed = each.answers

        assert state_of(db, made.run_id) is RunState.QUEUED
        assert state_of(db, failed) in {RunState.FAILED, RunState.SUPERSEDED}


def test_three_enqueues_of_one_key_make_one_run(db, level):
    keys = fresh_keys()

    def scripts():
        key = next(keys)
        return [script(db, enqueue, [new_run(key)]) for _ in range(3)]

    for each in played(db, scripts, at_most=30):
        assert [False, False, True] == sorted(found.created for (found,) in each.answers)
        assert 1 == len({found.run_id for (found,) in each.answers})


def test_an_enqueue_that_waited_for_one_that_rolled_back_makes_the_run(db, level):
    keys = fresh_keys()

    def scripts():
        key = next(keys)
        return [partial(rolled_back, db, enqueue, [new_run(key)]), script(db, enqueue, [new_run(key)])]

    for each in played(db, scripts):
        _, (found,) = each.answers

        assert found.created


class ChangedItsMindError(Exception):
    """Ends a transaction from inside."""


def rolled_back(db, verb, *arguments):
    def work(conn):
        verb(conn, *arguments)
        raise ChangedItsMindError

    with suppress(ChangedItsMindError):
        db.run(work)


def test_two_runs_of_one_subject_leave_one_alive_and_it_is_the_newer(db, level):
    """
    INVARIANT: at most one live run a subject.

    Breaks if the subject's row is not taken before the runs: each enqueue would miss the other's run.
    """
    subjects = fresh_keys()

    def scripts():
        scripts.subject = next(subjects)
        make(db, queued_run, subject=scripts.subject)
        return [script(db, enqueue, [new_run(subject=scripts.subject)]) for _ in range(2)]

    for _ in played(db, scripts):
        assert 1 == len(live(db, scripts.subject))


def test_a_subject_whose_last_run_is_purged_still_counts_for_whoever_enqueues(db, level):
    """
    INVARIANT: a generation never goes back while a run of its subject is there.

    Breaks if a subject's row is deleted by what was read before the row was locked: the next run would not be newer
    than the live one, and both would live.
    """
    subjects = fresh_keys()

    def scripts():
        scripts.subject = next(subjects)
        make(db, canceled_run, subject=scripts.subject)
        return [
            script(db, purge, dict.fromkeys(TERMINAL, NOW)),
            script(db, enqueue, [new_run(subject=scripts.subject)]),
        ]

    for each in played(db, scripts):
        (between,) = each.answers[1]
        (last,) = db.run(lambda conn: enqueue(conn, [new_run(subject=scripts.subject)]))

        assert RunState.SUPERSEDED is state_of(db, between.run_id)
        assert [last.run_id] == live(db, scripts.subject)


def test_a_purged_run_is_never_made_again_while_its_key_lasts(db, level):
    """
    INVARIANT: a late duplicate of finished work starts nothing, whatever purge does meanwhile.

    Breaks if a tombstone is looked for before the key is inserted, or the key goes with the run.
    """
    keys = fresh_keys()

    def scripts():
        key = next(keys)
        scripts.run_id = make(db, canceled_run, key)
        return [
            script(db, purge, dict.fromkeys(TERMINAL, NOW)),
            script(db, purge_keys),
            script(db, enqueue, [new_run(key)]),
        ]

    for each in interleavings(db, scripts, at_most=40):
        (found,) = each.answers[2]

        assert (found.run_id, found.created) == (scripts.run_id, False)


def test_an_expired_key_passes_to_exactly_one_new_run(db, level):
    keys = fresh_keys()

    def scripts():
        key = next(keys)
        make(db, canceled_run, key, keep_key=NOW)
        make(db, purge, dict.fromkeys(TERMINAL, NOW))
        return [script(db, purge_keys)] + [script(db, enqueue, [new_run(key)]) for _ in range(2)]

    for each in played(db, scripts):
        (one,), (other,) = each.answers[1:]

        assert {True, False} == {one.created, other.created}
        assert one.run_id == other.run_id
        assert state_of(db, one.run_id) is RunState.QUEUED
