"""When a run was changed and claimed last, by the database's clock."""

from __future__ import annotations

from datetime import timedelta

from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.dispatch import dispatch
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.release import release
from tests.ledger.factories import LEASE, claim_again, claimed_run, finish, queued_run

MINUTE = timedelta(minutes=1)


def times(conn, run_id):
    view = read.run(conn, run_id)
    return view.updated_at, view.claimed_at


def test_a_run_that_nobody_claimed_was_changed_when_it_was_enqueued(conn, clock):
    run_id, then = queued_run(conn), clock.now
    clock.advance(MINUTE)

    assert (then, None) == times(conn, run_id)


def test_a_transition_is_a_change_and_a_claim_is_kept_after_its_end(conn, clock):
    taken = claimed_run(conn)
    began = clock.now
    clock.advance(MINUTE)
    release(conn, [taken])
    released, given_back = times(conn, taken.run_id), clock.now
    clock.advance(MINUTE)
    again = claim_again(conn, taken.run_id)
    claimed, then = times(conn, taken.run_id), clock.now
    clock.advance(MINUTE)
    finish(conn, again)

    assert (given_back, began) == released
    assert (then, then) == claimed
    assert clock.now == times(conn, taken.run_id)[0]


def test_what_was_asked_of_a_run_is_a_change_too(conn, clock):
    run_id = queued_run(conn)
    clock.advance(MINUTE)
    cancel(conn, [run_id])

    assert (clock.now, None) == times(conn, run_id)


def test_neither_a_heartbeat_nor_a_message_is_a_change(conn, clock):
    taken, waiting = claimed_run(conn), queued_run(conn, key="other")
    before = clock.now
    clock.advance(timedelta(seconds=30))
    heartbeat(conn, [(taken, LEASE)])
    sent = dispatch(conn, phases=[("review", "plan")], spacing=MINUTE)

    assert [waiting] == [each.run_id for each in sent]
    assert [before, before] == [times(conn, each)[0] for each in (taken.run_id, waiting)]


def test_the_next_phase_that_is_claimed_with_a_completion_is_a_claim(conn, clock):
    taken = claimed_run(conn)
    clock.advance(MINUTE)
    finish(conn, taken, inline=True)

    assert (clock.now, clock.now) == times(conn, taken.run_id)
