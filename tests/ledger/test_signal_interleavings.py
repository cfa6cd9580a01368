"""Every interleaving of a signal with what else moves its run; see `test_interleavings`."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.signal import Answer
from runclaim.states import RunState
from tests.ledger.factories import (
    claimed_run,
    finish,
    new_run,
    send,
    waiting_run,
)
from tests.ledger.played import fresh_keys, live, make, played, script


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
