"""dispatch: what is due is stamped and named for publishing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from runclaim.keys import uuid7
from runclaim.ledger.cancel import cancel
from runclaim.ledger.dispatch import Due
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.put_back import put_back
from tests.ledger.factories import (
    DISPATCH_AFTER,
    SPACING,
    blocked_run,
    claim_again,
    claimed_run,
    due,
    finish,
    new_run,
    queued_run,
    queued_runs,
    succeeded_run,
    take,
    waiting_run,
    wanted,
)
from tests.ledger.sql import row

SOON = timedelta(seconds=5)


def named(dues):
    return {each.run_id for each in dues}


def test_a_due_run_is_named_with_all_that_its_message_needs(conn, clock):
    run_id = queued_run(conn, "pr-7", queue="slow", priority=3)
    clock.advance(DISPATCH_AFTER)

    assert [Due(run_id, 0, "review", "plan", "slow", "pr-7", 3)] == due(conn)


def test_a_run_is_left_to_its_publisher_until_it_is_due(conn, clock):
    queued_run(conn)
    clock.advance(DISPATCH_AFTER - timedelta(seconds=1))

    assert [] == due(conn)


def test_a_phase_that_goes_through_the_broker_is_named_at_its_own_fence(conn, clock, claimed_run):
    finish(conn, claimed_run, inline=False, queue="slow")
    clock.advance(DISPATCH_AFTER)

    assert [Due(claimed_run.run_id, 2, "review", "deliver", "slow", claimed_run.key, 0)] == due(conn)


def test_a_run_is_named_once_however_many_beats_ask(conn, clock):
    run_id = queued_run(conn)
    clock.advance(DISPATCH_AFTER)

    assert {run_id} == named(due(conn))
    assert [] == due(conn)


def test_the_spacing_doubles_with_every_dispatch_up_to_an_hour(conn, clock):
    run_id = queued_run(conn)
    waits = []
    for _ in range(15):
        clock.advance(row(conn, run_id)["dispatch_due_at"] - clock.now)
        assert {run_id} == named(due(conn))
        waits.append((row(conn, run_id)["dispatch_due_at"] - clock.now).total_seconds())

    assert [30, 60, 120, 240, 480, 960, 1920] + [3600] * 8 == waits


def test_a_broker_that_is_down_for_ten_minutes_costs_each_run_a_few_messages(conn, clock):
    """
    INVARIANT: a dead broker costs ever less: messages grow with the logarithm of time, not with the number of beats.

    Breaks if the spacing does not grow, or a dispatch does not stamp.
    """
    queued_runs(conn, 50)
    published = 0
    for _ in range(120):
        clock.advance(timedelta(seconds=5))
        published += len(due(conn))

    assert 50 * 5 == published


def test_a_transition_starts_the_spacing_anew(conn, clock):
    run_id = queued_run(conn)
    for _ in range(5):
        clock.advance(timedelta(hours=1))
        due(conn)
    finish(conn, claim_again(conn, run_id), inline=False)
    clock.advance(DISPATCH_AFTER)
    due(conn)

    assert row(conn, run_id)["dispatch_due_at"] == clock.now + SPACING


def test_one_call_names_at_most_its_limit_the_longest_due_first(conn, clock):
    old = queued_runs(conn, 3)
    clock.advance(timedelta(seconds=1))
    new = queued_runs(conn, 3)
    clock.advance(DISPATCH_AFTER)

    assert named(due(conn, limit=3)) == set(old)
    assert named(due(conn, limit=3)) == set(new)


def test_a_run_of_a_flow_that_this_application_does_not_know_is_left_to_another(conn, clock):
    ours, theirs = queued_run(conn), queued_run(conn, flow="deploy")
    clock.advance(DISPATCH_AFTER)

    assert {ours} == named(due(conn))
    assert {theirs} == named(due(conn, flows=("deploy", "review")))
    assert [] == due(conn, flows=())


def test_only_queued_runs_are_named(conn, clock):
    claimed_run(conn), blocked_run(conn), waiting_run(conn), succeeded_run(conn)
    cancel(conn, [queued_run(conn)])
    clock.advance(timedelta(days=1))

    assert [] == due(conn)


def test_a_delayed_run_is_named_when_its_delay_is_over(conn, clock):
    run_id = queued_run(conn, delay=timedelta(hours=2))
    clock.advance(timedelta(hours=1))
    early = due(conn)
    clock.advance(timedelta(hours=1))

    assert [] == early
    assert {run_id} == named(due(conn))


def test_a_dispatch_moves_no_fence_so_every_message_of_a_run_is_good(conn, clock):
    run_id = queued_run(conn)
    first = wanted(conn, run_id)
    clock.advance(DISPATCH_AFTER)
    again = due(conn)[0]

    assert again.fence == first.seen
    assert take(conn, first) is not None


def test_a_run_enqueued_to_be_published_by_the_ledger_is_due_at_once(conn):
    run = new_run(dispatch_after=timedelta(0))
    enqueue(conn, [run])

    assert {run.run_id} == named(due(conn))


def test_a_run_at_a_phase_that_this_release_does_not_have_is_not_stamped(conn, clock):
    """
    INVARIANT: who cannot publish a run leaves its spacing alone.

    Breaks if dispatch picks by the flow alone.
    """
    run_id = queued_run(conn)
    clock.advance(DISPATCH_AFTER)

    assert [] == due(conn, phases=("deliver", "compound"))
    assert 0 == row(conn, run_id)["dispatches"]
    assert {run_id} == named(due(conn))


@pytest.mark.parametrize("dispatches", [12, 13, 31, 32, 33, 63, 64, 100])
def test_no_number_of_dispatches_shortens_the_spacing(conn, clock, dispatches):
    """
    INVARIANT: a run that was dispatched very often is dispatched once an hour.

    Breaks if the doublings are not capped: a shift by 31 is negative, and by 32 it begins anew.
    """
    run_id = queued_run(conn)
    conn.execute(text("UPDATE runclaim_runs SET dispatches = :many"), {"many": dispatches})
    clock.advance(DISPATCH_AFTER)

    assert {run_id} == named(due(conn))
    assert row(conn, run_id)["dispatch_due_at"] == clock.now + timedelta(hours=1)


def test_a_run_that_is_put_back_is_due_soon_and_its_dispatch_does_not_count(conn, clock):
    """
    INVARIANT: a message that reaches a release without its task costs the run a moment and no doubled spacing.

    Breaks if put_back leaves the stamp of the dispatch as it is.
    """
    run_id = queued_run(conn)
    for _ in range(6):
        clock.advance(timedelta(hours=1))
        due(conn)
        returned = put_back(conn, [(run_id, 0)], task="review.plan", delay=SOON)

    assert {run_id} == returned
    assert 0 == row(conn, run_id)["dispatches"]
    assert [] == due(conn)
    clock.advance(SOON)
    assert {run_id} == named(due(conn))


def test_what_is_due_sooner_is_not_put_back_later(conn, clock):
    run_id = queued_run(conn, dispatch_after=timedelta(0))
    put_back(conn, [(run_id, 0)], task="review.plan", delay=SOON)

    assert {run_id} == named(due(conn))


@pytest.mark.parametrize("told", ["an older fence", "another task", "a run that is claimed", "a run that is delayed"])
def test_a_message_that_says_what_is_no_longer_so_puts_nothing_back(conn, clock, told):
    delay = timedelta(days=1) if told == "a run that is delayed" else timedelta(0)
    run_id = queued_run(conn, delay=delay)
    if told == "a run that is claimed":
        claim_again(conn, run_id)
    before = row(conn, run_id)
    fence, task = 7 if told == "an older fence" else 0, "review.deliver" if told == "another task" else "review.plan"

    assert set() == put_back(conn, [(run_id, fence), (uuid7(), 0)], task=task, delay=SOON)
    assert row(conn, run_id) == before
