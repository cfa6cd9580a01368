"""
Every interleaving of two or three transactions, statement by statement, on PostgreSQL.

At READ COMMITTED the row decides; at the other levels the database asks for some to be repeated, which is
`Database.run`'s work: no caller ever sees a 40001. Nothing here may deadlock.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from runclaim.errors import ClaimLost
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import fail
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.release import release
from runclaim.ledger.rescue import rescue, rescue_worker
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.states import RunState
from tests.ledger.concurrency import DEADLOCK
from tests.ledger.factories import (
    LEASE,
    blocked_run,
    claimed_run,
    claimed_runs,
    completion,
    due,
    failed_run,
    failure,
    finish,
    new_run,
    queued_run,
    queued_runs,
    take,
    wanted,
)
from tests.ledger.interleaving import interleavings
from tests.ledger.played import fresh_keys, live, make, played, script, state_of

NOW = timedelta(0)


def test_one_of_two_claims_of_a_run_gets_it(db, level):
    def scripts():
        run_id = make(db, queued_run)
        return [script(db, take, make(db, wanted, run_id)) for _ in range(2)]

    for each in played(db, scripts):
        assert [False, True] == sorted(found is None for found in each.answers)


def test_a_claim_and_a_cancel_agree_on_who_was_first(db, level):
    """
    INVARIANT: the guards of a claim are columns of the row it updates.

    Breaks if claim decides by what it read before it waited for the row.
    """
    outcomes = set()

    def scripts():
        scripts.run_id = make(db, queued_run)
        return [
            script(db, take, make(db, wanted, scripts.run_id)),
            script(db, cancel, [scripts.run_id]),
        ]

    for each in played(db, scripts):
        claim, canceled = each.answers
        outcomes.add((claim is not None, canceled[scripts.run_id], state_of(db, scripts.run_id)))

    assert {
        (True, RunState.RUNNING, RunState.RUNNING),
        (False, RunState.CANCELED, RunState.CANCELED),
    } == outcomes


def completed_with_a_row(db, claim):
    """Complete the phase with a row of the application's; both or nothing."""

    def work(conn):
        conn.execute(text("INSERT INTO test_user_rows VALUES (:run_id)"), {"run_id": claim.run_id})
        moved = complete(conn, [completion(claim)]).get(claim.run_id)
        if moved is None:
            raise ClaimLost(claim.run_id, claim.phase, claim.fence)
        return moved

    try:
        return db.run(work)
    except ClaimLost:
        return None


@pytest.fixture
def user_rows(postgres):
    """A table without constraints, as an application may have one. Gives the count of a run's rows in it."""
    with postgres.begin() as conn:
        conn.execute(text("CREATE TABLE test_user_rows (run_id uuid)"))

    def count(run_id):
        with postgres.read() as conn:
            return conn.execute(
                text("SELECT count(*) FROM test_user_rows WHERE run_id = :run_id"), {"run_id": run_id}
            ).scalar_one()

    yield count
    with postgres.begin() as conn:
        conn.execute(text("DROP TABLE test_user_rows"))


def last_claim(db, **what):
    return make(db, claimed_run, phases=("plan",), **what)


def test_a_completion_and_a_supersede_agree_and_so_do_the_users_rows(db, level, user_rows):
    """
    INVARIANT: a phase's rows exist exactly if it completed.

    Breaks if a completion is guarded by less than the row it updates: it would overwrite "superseded".
    """
    subjects, outcomes = fresh_keys(), set()

    def scripts():
        subject = next(subjects)
        scripts.claim = last_claim(db, subject=subject)
        return [
            partial(completed_with_a_row, db, scripts.claim),
            script(db, enqueue, [new_run(subject=subject)]),
        ]

    for each in played(db, scripts):
        run_id = scripts.claim.run_id
        outcomes.add((each.answers[0] is not None, state_of(db, run_id), user_rows(run_id)))

    assert {(True, RunState.SUCCEEDED, 1), (False, RunState.SUPERSEDED, 0)} == outcomes


def test_a_completion_and_a_rescue_agree_and_so_do_the_users_rows(db, level, user_rows):
    outcomes = set()

    def scripts():
        scripts.claim = last_claim(db, how={"lease": NOW})
        return [partial(completed_with_a_row, db, scripts.claim), script(db, rescue)]

    for each in played(db, scripts):
        run_id = scripts.claim.run_id
        outcomes.add((each.answers[0] is not None, state_of(db, run_id), user_rows(run_id)))
        make(db, cancel, [run_id])

    assert {(True, RunState.SUCCEEDED, 1), (False, RunState.QUEUED, 0)} == outcomes


def test_a_completion_that_is_sent_twice_counts_once(db, level, user_rows):
    def scripts():
        scripts.claim = last_claim(db)
        return [partial(completed_with_a_row, db, scripts.claim)] * 2

    for each in played(db, scripts):
        assert [False, True] == sorted(answer is None for answer in each.answers)
        assert 1 == user_rows(scripts.claim.run_id)


def test_a_cancel_and_the_last_completion_agree(db, level):
    outcomes = set()

    def scripts():
        scripts.claim = last_claim(db)
        return [script(db, finish, scripts.claim), script(db, cancel, [scripts.claim.run_id])]

    for each in played(db, scripts):
        asked = each.answers[1].get(scripts.claim.run_id)
        outcomes.add((asked, state_of(db, scripts.claim.run_id)))

    assert {(RunState.RUNNING, RunState.SUCCEEDED), (None, RunState.SUCCEEDED)} == outcomes


def test_a_cancel_and_a_completion_with_more_to_come_agree(db, level):
    outcomes = set()

    def scripts():
        scripts.claim = make(db, claimed_run)
        return [script(db, finish, scripts.claim), script(db, cancel, [scripts.claim.run_id])]

    for each in played(db, scripts):
        moved, asked = each.answers
        outcomes.add((moved.state, asked[scripts.claim.run_id], state_of(db, scripts.claim.run_id)))

    assert {
        (RunState.CANCELED, RunState.RUNNING, RunState.CANCELED),
        (RunState.RUNNING, RunState.RUNNING, RunState.RUNNING),
    } == outcomes


def test_a_retry_and_a_newer_run_of_the_subject_leave_one_alive(db, level):
    """
    INVARIANT: at most one live run a subject, also when an old one is sent on.

    Breaks if retry does not lock the subject's row before it looks at the generation.
    """
    subjects, outcomes = fresh_keys(), set()

    def scripts():
        scripts.subject = next(subjects)
        scripts.older = make(db, failed_run, subject=scripts.subject).run_id
        return [script(db, retry, scripts.older), script(db, enqueue, [new_run(subject=scripts.subject)])]

    for each in played(db, scripts):
        outcomes.add((each.answers[0], state_of(db, scripts.older)))
        assert 1 == len(live(db, scripts.subject))

    assert {(True, RunState.SUPERSEDED), (False, RunState.FAILED)} == outcomes


@pytest.mark.parametrize("again, made", [(retry, failed_run), (resume, blocked_run)], ids=["retry", "resume"])
def test_of_two_who_send_a_run_on_one_does(db, level, again, made):
    def scripts():
        run_id = make(db, made).run_id
        return [script(db, again, run_id)] * 2

    for each in played(db, scripts, at_most=20):
        assert [False, True] == sorted(each.answers)


@pytest.mark.parametrize(
    "again, made, without",
    [(retry, failed_run, {(None, RunState.QUEUED)}), (resume, blocked_run, set())],
    ids=["retry", "resume"],
)
def test_a_cancel_and_somebody_who_sends_the_run_on_agree(db, level, again, made, without):
    """A failed run cannot be canceled before it is retried; a blocked one can, and is then not resumed."""
    outcomes = set()

    def scripts():
        scripts.run_id = make(db, made).run_id
        return [script(db, again, scripts.run_id), script(db, cancel, [scripts.run_id])]

    for each in interleavings(db, scripts, at_most=20):
        canceled = each.answers[1].get(scripts.run_id)
        outcomes.add((canceled, state_of(db, scripts.run_id)))
        assert DEADLOCK not in each.sqlstates

    assert {(RunState.CANCELED, RunState.CANCELED)} | without == outcomes


def test_two_rescuers_give_each_lapsed_claim_back_once(db, level):
    """
    INVARIANT: any number of rescuers may run.

    Breaks if the UPDATE trusts what the SELECT saw: a claim would be counted as lost twice.
    """

    def scripts():
        scripts.claims = [make(db, claimed_run, how={"lease": NOW}) for _ in range(3)]
        return [script(db, rescue), script(db, rescue_worker, "node:1")]

    for each in interleavings(db, scripts, at_most=30):
        one, other = each.answers
        with db.read() as conn:
            losses = [read.run(conn, claim.run_id).losses for claim in scripts.claims]

        assert not set(one) & set(other)
        assert [1, 1, 1] == losses
        make(db, cancel, [claim.run_id for claim in scripts.claims])


def test_a_release_and_a_rescue_agree_on_the_attempt(db, level):
    outcomes = set()

    def scripts():
        scripts.claim = make(db, claimed_run, how={"lease": NOW})
        return [script(db, release, [scripts.claim]), script(db, rescue)]

    for _ in played(db, scripts, at_most=20):
        with db.read() as conn:
            view = read.run(conn, scripts.claim.run_id)
        outcomes.add((view.state, view.attempts, view.losses))
        make(db, cancel, [scripts.claim.run_id])

    assert {(RunState.QUEUED, 0, 0), (RunState.QUEUED, 1, 1)} == outcomes


def test_a_failure_and_a_beat_agree_whether_the_claim_stands(db, level):
    def scripts():
        claim = make(db, claimed_run)
        return [script(db, fail, [failure(claim)]), script(db, heartbeat, [(claim, LEASE)])]

    for each in played(db, scripts, at_most=20):
        assert 1 == len(each.answers[0])


def test_two_beats_name_each_due_run_once(db, level):
    def scripts():
        scripts.runs = set(make(db, queued_runs, 3, dispatch_after=NOW))
        return [script(db, due), script(db, due)]

    for each in interleavings(db, scripts, at_most=20):
        one, other = ({found.run_id for found in answer} for answer in each.answers)

        assert one | other == scripts.runs
        assert not one & other
        make(db, cancel, scripts.runs)


def test_sets_of_claims_in_any_order_do_not_deadlock(db, level):
    """
    INVARIANT: a verb locks its runs in the order of their ids.

    Breaks if beats and completions lock them in the order they were given.
    """

    def scripts():
        one, other = make(db, claimed_runs, 2)
        return [
            script(db, heartbeat, [(one, LEASE), (other, LEASE)]),
            script(db, complete, [completion(other), completion(one)]),
            script(db, cancel, [one.run_id, other.run_id]),
        ]

    for each in played(db, scripts):
        assert 2 == len(each.answers[1])


def test_a_completion_that_enqueues_and_a_newer_run_of_its_subject_do_not_deadlock(db, level):
    """
    INVARIANT: the user's rows, run keys, subjects, runs: everybody locks in this order, the CAS last.

    Breaks if the run's row is updated before what hangs on other rows.
    """
    subjects = fresh_keys()

    def enqueue_and_complete(subject, claim):
        def work(conn):
            enqueue(conn, [new_run(subject=subject + ":child")])
            return complete(conn, [completion(claim)])

        return db.run(work)

    def scripts():
        subject = next(subjects)
        claim = make(db, claimed_run, subject=subject)
        return [
            partial(enqueue_and_complete, subject, claim),
            script(db, enqueue, [new_run(subject=subject + ":child"), new_run(subject=subject)]),
        ]

    for _ in played(db, scripts):
        pass
