"""signal: received once, kept for who comes later, and what a waiting run goes on by."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runclaim.events import EventType
from runclaim.keys import uuid7
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.claim import claimed
from runclaim.ledger.complete import complete, completed
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.rescue import rescue
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.ledger.signal import Answer, delivered
from runclaim.states import PhaseStatus, RunState
from tests.ledger.factories import (
    DISPATCH_AFTER,
    FLOW,
    LEASE,
    MAX_DURATION,
    PHASES,
    SIGNAL,
    blocked_run,
    canceled_run,
    claim_again,
    claimed_run,
    completion,
    due,
    fail,
    failed_run,
    failure,
    finish,
    new_run,
    queued_run,
    send,
    succeeded_run,
    superseded_run,
    take,
    waiting_between,
    waiting_run,
    wanted,
)
from tests.ledger.sql import column, count, row

QUEUED, RUNNING, WAITING = RunState.QUEUED, RunState.RUNNING, RunState.WAITING


def test_a_run_whose_first_phase_waits_is_made_waiting_and_nobody_is_told(conn, clock):
    run_id = waiting_run(conn)
    clock.advance(MAX_DURATION)

    assert (WAITING, 0, SIGNAL) == (
        row(conn, run_id)["state"],
        row(conn, run_id)["fence"],
        column(conn, run_id, "waits_for"),
    )
    assert take(conn, wanted(conn, run_id)) is None
    assert [] == due(conn)


@pytest.mark.parametrize("inline", [True, False])
def test_a_completion_lets_its_run_wait_for_the_signal_of_the_next_phase(conn, clock, claimed_run, inline):
    """
    INVARIANT: a phase with a signal starts only once its run has received it, also in the delivery of the phase before.

    Breaks if the inline claim does not look at what the next phase waits for.
    """
    moved = finish(conn, claimed_run, inline=inline, waits_for=SIGNAL)

    found = row(conn, claimed_run.run_id)
    assert (WAITING, None) == (moved.state, moved.claim)
    assert (1, PHASES[1], SIGNAL, 0) == (found["cursor"], found["phase"], found["waits_for"], found["attempts"])
    assert (None, None, None) == (found["owner"], found["worker"], found["finished_at"])


@pytest.mark.parametrize("inline, state", [(True, RUNNING), (False, QUEUED)])
def test_a_signal_that_came_before_lets_the_run_pass(conn, clock, claimed_run, inline, state):
    """
    INVARIANT: a signal counts also before the run waits.

    Breaks if a completion waits for what stands in `signals`.
    """
    assert send(conn, claimed_run.run_id).moved is False
    moved = finish(conn, claimed_run, inline=inline, waits_for=SIGNAL)

    assert state is moved.state
    assert SIGNAL == column(conn, claimed_run.run_id, "waits_for")


@pytest.mark.parametrize("made", [waiting_run, waiting_between])
def test_the_signal_queues_the_run_that_waits_for_it_due_at_once(conn, clock, made):
    run_id = made(conn)
    before = row(conn, run_id)
    clock.advance(timedelta(minutes=5))
    found = send(conn, run_id)

    after = row(conn, run_id)
    assert (Answer.DELIVERED, True) == (found.answer, found.moved)
    assert (QUEUED, before["fence"] + 1, 0) == (after["state"], after["fence"], after["dispatches"])
    assert (clock.now, clock.now) == (after["available_at"], after["dispatch_due_at"])
    assert [found.due] == due(conn)
    assert (run_id, after["fence"], FLOW, after["phase"]) == (found.due.run_id, found.due.fence, FLOW, found.due.phase)
    assert 1 == claim_again(conn, run_id, waits_for=SIGNAL).attempt


def test_the_first_claim_after_a_signal_is_where_the_run_starts(conn, clock):
    run_id = waiting_run(conn)
    send(conn, run_id)
    claim_again(conn, run_id)

    assert [EventType.RUN_ENQUEUED, EventType.RUN_SIGNALED, EventType.RUN_STARTED, EventType.PHASE_STARTED] == [
        event.type for event in read.journal(conn, run_id)
    ]


def test_a_run_that_was_given_back_does_not_start_twice(conn, clock):
    taken = claimed_run(conn)
    fail(conn, [failure(taken)])
    claim_again(conn, taken.run_id)

    assert 1 == [event.type for event in read.journal(conn, taken.run_id)].count(EventType.RUN_STARTED)


def test_a_delay_that_the_run_was_enqueued_with_outlives_the_signal(conn, clock):
    run_id = waiting_run(conn, delay=timedelta(hours=1))
    ends = clock.now + timedelta(hours=1)
    found = send(conn, run_id)

    assert (True, None) == (found.moved, found.due)
    assert [ends, ends] == [row(conn, run_id)[name] for name in ("available_at", "dispatch_due_at")]


def test_a_signal_is_journaled_with_its_name_and_id(conn, clock):
    run_id = queued_run(conn)
    send(conn, run_id, signal_id="review-9")
    last = read.journal(conn, run_id)[-1]

    assert (EventType.RUN_SIGNALED, 0, {"name": SIGNAL, "id": "review-9"}) == (last.type, last.fence, last.data)


@pytest.mark.parametrize("made", [queued_run, waiting_run, claimed_run, blocked_run])
def test_the_same_signal_again_changes_nothing(conn, clock, made):
    """
    INVARIANT: a signal is received once by its id.

    Breaks if the name is added again, or the run is queued again, for an id that is there.
    """
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    send(conn, run_id, payload='"first"')
    before, events = row(conn, run_id), count(conn, "events")
    again = send(conn, run_id, payload='"second"')

    assert (Answer.DUPLICATE, False, None) == (again.answer, again.moved, again.due)
    assert (before, events, 1) == (row(conn, run_id), count(conn, "events"), count(conn, "signals"))
    assert ("first",) == read.signal(conn, run_id, SIGNAL)


def test_another_id_of_a_received_name_is_kept_and_moves_nothing(conn, clock):
    """The first of a name is what its phase reads, however coarse the clock is."""
    run_id = waiting_run(conn)
    send(conn, run_id, signal_id="z", payload='{"by": "ann"}')
    before = row(conn, run_id)
    later = [send(conn, run_id, signal_id=each, payload='{"by": "bob"}') for each in ("a", "b")]

    assert [(Answer.DELIVERED, False)] * 2 == [(each.answer, each.moved) for each in later]
    assert (before, 3) == (row(conn, run_id), count(conn, "signals"))
    assert ({"by": "ann"},) == read.signal(conn, run_id, SIGNAL)


def test_a_name_that_is_wanted_once_is_left_alone_when_it_was_received(conn, clock):
    run_id = waiting_run(conn)
    send(conn, run_id, signal_id="z", first_only=True)
    later = send(conn, run_id, signal_id="a", first_only=True)

    assert (Answer.DUPLICATE, 1) == (later.answer, count(conn, "signals"))


@pytest.mark.parametrize("other", ["approve", "approved.", "unapproved", "approved-2", "%", "a_proved", "APPROVED"])
def test_a_signal_of_another_name_lets_nobody_pass(conn, clock, other):
    """
    INVARIANT: names are compared whole and byte by byte.

    Breaks if membership is a LIKE, or a name is looked for without its bars.
    """
    run_id = waiting_run(conn)

    assert send(conn, run_id, other).moved is False
    assert WAITING == row(conn, run_id)["state"]
    assert send(conn, run_id).moved is True


def test_a_run_remembers_every_name_that_it_received(conn, clock, claimed_run):
    for name in ("merged", SIGNAL, "closed"):
        send(conn, claimed_run.run_id, name)
    second = finish(conn, claimed_run, waits_for=SIGNAL).claim
    third = finish(conn, second, waits_for="closed").claim

    assert (PHASES[2], RunState.SUCCEEDED) == (third.phase, finish(conn, third).state)


def test_two_phases_that_wait_for_one_name_both_pass_by_one_signal(conn, clock):
    run_id = waiting_run(conn)
    send(conn, run_id)
    first = claim_again(conn, run_id, waits_for=SIGNAL)

    assert RUNNING is finish(conn, first, waits_for=SIGNAL).state


@pytest.mark.parametrize("made", [succeeded_run, failed_run, canceled_run, superseded_run])
def test_a_run_that_has_ended_receives_nothing(conn, clock, made):
    """
    INVARIANT: terminal states absorb.

    Breaks if signal does not look at the state.
    """
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    before = row(conn, run_id)

    assert Answer.NOT_LIVE is send(conn, run_id).answer
    assert (before, 0) == (row(conn, run_id), count(conn, "signals"))


def test_the_same_signal_after_the_end_is_still_a_duplicate(conn, clock):
    """A sender that repeats itself need not know how far the run is."""
    run_id = waiting_run(conn)
    send(conn, run_id)
    cancel(conn, [run_id])

    assert Answer.DUPLICATE is send(conn, run_id).answer


def test_a_run_that_never_was_receives_nothing(conn, clock):
    assert Answer.NOT_LIVE is send(conn, uuid7()).answer


def test_a_claim_without_the_signal_is_refused_whatever_queued_the_run(conn, clock, claimed_run):
    """
    INVARIANT: a phase with a signal starts only once its run has received it.

    Breaks if claim trusts the state: a worker of an older release queues a run whose next phase it does not know.
    """
    finish(conn, claimed_run, inline=False)
    asked = wanted(conn, claimed_run.run_id)

    assert take(conn, asked, phase=PHASES[1], waits_for=SIGNAL) is None
    clock.advance(DISPATCH_AFTER)
    due(conn)
    told = send(conn, claimed_run.run_id)
    assert (False, asked.seen) == (told.moved, told.due.fence)
    assert take(conn, asked, phase=PHASES[1], waits_for=SIGNAL) is not None
    assert 1 == len(claimed(conn, [asked]))


def test_a_queued_run_whose_message_is_on_its_way_is_not_published_again_for_a_signal(conn, clock, queued_run):
    assert send(conn, queued_run).due is None


def test_a_run_that_somebody_holds_is_not_published_for_a_signal(conn, clock):
    run_id = queued_run(conn)
    clock.advance(DISPATCH_AFTER)
    due(conn)
    claim_again(conn, run_id)

    assert send(conn, run_id).due is None


def test_a_phase_of_a_waiting_run_is_pending_and_the_run_says_what_it_waits_for(conn, clock):
    view = read.run(conn, waiting_between(conn))

    assert [PhaseStatus.COMPLETE, PhaseStatus.PENDING, PhaseStatus.PENDING] == list(view.phases.values())
    assert SIGNAL == view.waits_for


def test_a_run_that_goes_on_waits_for_nothing(conn, clock):
    run_id = waiting_run(conn)
    send(conn, run_id)

    assert read.run(conn, run_id).waits_for is None


def test_the_last_phase_leaves_nothing_to_wait_for(conn, clock):
    run_id = waiting_run(conn, phases=("plan",))
    send(conn, run_id)
    finish(conn, claim_again(conn, run_id))

    assert (RunState.SUCCEEDED, None) == (row(conn, run_id)["state"], column(conn, run_id, "waits_for"))


@pytest.mark.parametrize("made", [waiting_run, waiting_between])
def test_a_waiting_run_is_canceled_or_superseded_and_never_rescued_retried_or_resumed(conn, clock, made):
    run_id = made(conn, subject="pr-7")
    clock.advance(MAX_DURATION + LEASE)

    assert ({}, False, False) == (rescue(conn), retry(conn, run_id), resume(conn, run_id))
    newer = made(conn, subject="pr-7")
    assert (RunState.SUPERSEDED, {newer: RunState.CANCELED}) == (row(conn, run_id)["state"], cancel(conn, [newer]))
    assert [Answer.NOT_LIVE] * 2 == [send(conn, each).answer for each in (run_id, newer)]


def test_a_run_that_was_asked_to_end_ends_and_does_not_wait(conn, clock, claimed_run):
    cancel(conn, [claimed_run.run_id])

    assert RunState.CANCELED is finish(conn, claimed_run, waits_for=SIGNAL).state


def test_a_phase_that_had_its_signal_is_retried_and_resumed_without_another(conn, clock):
    for again, made in ((retry, failed_run), (resume, blocked_run)):
        taken = made(conn)
        assert again(conn, taken.run_id)

    run_id = waiting_run(conn)
    send(conn, run_id)
    fail(conn, [failure(claim_again(conn, run_id))])
    assert 2 == claim_again(conn, run_id, waits_for=SIGNAL).attempt


def test_an_answer_that_was_lost_is_read_back(conn, clock, claimed_run):
    given = completion(claimed_run, waits_for=SIGNAL)
    moved = complete(conn, [given])

    assert moved == completed(conn, [given])
    assert delivered(conn, claimed_run.run_id, SIGNAL, signal_id="1", call="mine") is None
    send(conn, claimed_run.run_id, call="mine")
    assert Answer.DELIVERED is delivered(conn, claimed_run.run_id, SIGNAL, signal_id="1", call="mine").answer
    assert delivered(conn, claimed_run.run_id, SIGNAL, signal_id="1", call="another's") is None


def test_the_signals_of_a_run_go_with_it(conn, clock):
    (made,) = enqueue(conn, [new_run()])
    send(conn, made.run_id)
    conn.exec_driver_sql("DELETE FROM runclaim_runs")

    assert 0 == count(conn, "signals")
