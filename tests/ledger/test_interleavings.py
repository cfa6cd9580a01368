"""
Every interleaving of two or three transactions, statement by statement, on PostgreSQL.

At READ COMMITTED the row decides; at the other levels the database asks for some to be repeated, which is
`Database.run`'s work: no caller ever sees a 40001. Nothing here may deadlock.
"""

from __future__ import annotations

from contextlib import suppress
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
from runclaim.ledger.purge import purge, purge_keys
from runclaim.ledger.release import release
from runclaim.ledger.rerun import rerun
from runclaim.ledger.rescue import rescue, rescue_worker
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.ledger.signal import Answer
from runclaim.states import TERMINAL, RunState
from tests.ledger.concurrency import DEADLOCK
from tests.ledger.factories import (
    LEASE,
    blocked_run,
    canceled_run,
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
    send,
    take,
    waiting_run,
    wanted,
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


def signaled(db, run_id, name="approved"):
    """Whether the run is there, waits, and has the signal; what must never be is a run that waits for what it has."""
    with db.read() as conn:
        found = conn.execute(
            text("SELECT state, waits_for, signals FROM runclaim_runs WHERE id = :run_id"), {"run_id": run_id}
        ).one()
    has_it = f"|{name}|" in found.signals
    assert not (RunState.WAITING == found.state and found.waits_for == name and has_it)
    return RunState(found.state), has_it


@pytest.mark.parametrize("inline", [True, False])
def test_a_signal_and_the_completion_before_its_phase_never_miss_each_other(db, level, inline):
    """
    INVARIANT: no run waits for a signal that it has received.

    Breaks if a completion decides by the signals it saw before it waited for the row, or signal by the state it saw.
    """
    outcomes = set()
    after = RunState.RUNNING if inline else RunState.QUEUED

    def scripts():
        scripts.claim = make(db, claimed_run)
        return [
            script(db, finish, scripts.claim, inline=inline, waits_for="approved"),
            script(db, send, scripts.claim.run_id),
        ]

    for each in played(db, scripts):
        moved, told = each.answers
        outcomes.add((moved.state, told.moved, *signaled(db, scripts.claim.run_id)))

    assert {(after, False, after, True), (RunState.WAITING, True, RunState.QUEUED, True)} == outcomes


def test_a_signal_and_a_cancel_of_a_waiting_run_agree(db, level):
    outcomes = set()

    def scripts():
        scripts.run_id = make(db, waiting_run)
        return [script(db, send, scripts.run_id), script(db, cancel, [scripts.run_id])]

    for each in played(db, scripts):
        told, canceled = each.answers
        outcomes.add((told.answer, told.moved, canceled[scripts.run_id], *signaled(db, scripts.run_id)))

    assert {
        (Answer.DELIVERED, True, RunState.CANCELED, RunState.CANCELED, True),
        (Answer.NOT_LIVE, False, RunState.CANCELED, RunState.CANCELED, False),
    } == outcomes


def test_a_signal_and_a_newer_run_of_the_subject_leave_one_alive(db, level):
    subjects, outcomes = fresh_keys(), set()

    def scripts():
        scripts.subject = next(subjects)
        scripts.older = make(db, waiting_run, subject=scripts.subject)
        return [script(db, send, scripts.older), script(db, enqueue, [new_run(subject=scripts.subject)])]

    for each in played(db, scripts, at_most=100):
        outcomes.add((each.answers[0].answer, *signaled(db, scripts.older)))
        assert 1 == len(live(db, scripts.subject))

    assert {
        (Answer.DELIVERED, RunState.SUPERSEDED, True),
        (Answer.NOT_LIVE, RunState.SUPERSEDED, False),
    } == outcomes


@pytest.mark.parametrize("ids", [("1", "1"), ("1", "2")], ids=["one id", "two ids"])
def test_two_signals_of_one_name_queue_the_run_once(db, level, ids):
    """
    INVARIANT: a waiting run is queued once by its signal, however many bring it.

    Breaks if signal adds a name, or raises the fence, without looking whether the name is there.
    """

    def scripts():
        scripts.run_id = make(db, waiting_run)
        return [script(db, send, scripts.run_id, signal_id=each, payload=f'"{each}"') for each in ids]

    for each in played(db, scripts):
        one, other = each.answers
        first = one if one.moved else other
        with db.read() as conn:
            view, said = read.run(conn, scripts.run_id), read.signal(conn, scripts.run_id, "approved")

        assert [False, True] == sorted([one.moved, other.moved])
        assert {Answer.DELIVERED, Answer.DUPLICATE if ids == ("1", "1") else Answer.DELIVERED} == {
            one.answer,
            other.answer,
        }
        assert (RunState.QUEUED, 1) == (view.state, view.fence)
        assert (ids[each.answers.index(first)],) == said


def test_a_signal_a_completion_and_a_cancel_agree(db, level):
    """
    INVARIANT: as above, with all three at once: the run ends, whatever the order, or goes on with its claim.

    Breaks if one of the three decides by a row that it has read and not by the row that it writes.
    """

    def scripts():
        scripts.claim = make(db, claimed_run)
        return [
            script(db, finish, scripts.claim, waits_for="approved"),
            script(db, send, scripts.claim.run_id),
            script(db, cancel, [scripts.claim.run_id]),
        ]

    outcomes = set()
    for each in played(db, scripts):
        moved, told, canceled = each.answers
        outcomes.add((moved.state, told.answer, canceled[scripts.claim.run_id], signaled(db, scripts.claim.run_id)[0]))

    running, ended, over = RunState.RUNNING, RunState.CANCELED, Answer.NOT_LIVE
    assert outcomes <= {
        (running, Answer.DELIVERED, running, running),
        (ended, Answer.DELIVERED, running, ended),
        (ended, over, running, ended),
        (RunState.WAITING, Answer.DELIVERED, ended, ended),
        (RunState.WAITING, over, ended, ended),
    }
    assert len(outcomes) >= 3


def test_a_signal_a_completion_and_a_newer_run_agree(db, level):
    subjects = fresh_keys()

    def scripts():
        subject = next(subjects)
        scripts.claim = make(db, claimed_run, subject=subject)
        return [
            script(db, finish, scripts.claim, waits_for="approved"),
            script(db, send, scripts.claim.run_id),
            script(db, enqueue, [new_run(subject=subject)]),
        ]

    for each in played(db, scripts):
        assert signaled(db, scripts.claim.run_id)[0] is RunState.SUPERSEDED
        assert each.answers[2][0].created


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
