"""rescue: claims whose lease lapsed, or whose process is known to be dead, are given back."""

from __future__ import annotations

from datetime import timedelta

from runclaim.events import EventType
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.fail import fail
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.rescue import rescue, rescue_worker
from runclaim.ledger.retry import retry
from runclaim.states import RunState
from tests.ledger.factories import (
    LEASE,
    claim_again,
    claimed_run,
    claimed_runs,
    due,
    failure,
    finish,
    queued_run,
    queued_runs,
)
from tests.ledger.sql import row


def test_a_lapsed_claim_is_given_back_and_counted_as_a_loss(conn, clock, claimed_run):
    clock.advance(LEASE)

    assert {claimed_run.run_id: RunState.QUEUED} == rescue(conn)
    found = row(conn, claimed_run.run_id)
    assert (None,) * 4 == (found["owner"], found["worker"], found["lease_expires_at"], found["deadline_at"])
    assert (1, 1, 2, 0) == (found["attempts"], found["losses"], found["fence"], found["dispatches"])
    assert (found["available_at"], found["error"], found["finished_at"]) == (clock.now, None, None)
    last = read.journal(conn, claimed_run.run_id)[-1]
    assert (EventType.PHASE_RESCUED, "plan", 1) == (last.type, last.phase, last.attempt)
    assert [claimed_run.run_id] == [each.run_id for each in due(conn)]


def test_a_claim_inside_its_lease_is_left_alone(conn, clock, claimed_run):
    clock.advance(LEASE - timedelta(seconds=1))

    assert {} == rescue(conn)
    assert finish(conn, claimed_run) is not None


def test_a_beat_keeps_a_claim_from_rescue_until_its_deadline(conn, clock):
    """
    INVARIANT: a body that hangs for ever with a healthy heartbeat loses its claim at the deadline.

    Breaks if heartbeat extends a lease past the deadline, or rescue waits for silence.
    """
    hung = claimed_run(conn, how={"max_duration": LEASE * 3})
    for _ in range(2):
        clock.advance(LEASE - timedelta(seconds=1))
        heartbeat(conn, [(hung, LEASE)])
        assert {} == rescue(conn)
    clock.advance(LEASE)
    heartbeat(conn, [(hung, LEASE)])
    clock.advance(timedelta(seconds=2))

    assert {hung.run_id: RunState.QUEUED} == rescue(conn)


def test_a_body_that_kills_its_process_each_time_starts_as_often_as_its_budget_of_losses(conn, clock):
    """
    INVARIANT: a poison run ends.

    Breaks if rescue counts no loss, or claim counts the attempt late: the run would start for ever.
    """
    run_id = queued_run(conn, max_attempts=10, max_losses=3)
    starts = 0
    while read.states(conn, [run_id])[run_id] is RunState.QUEUED:
        claim_again(conn, run_id)
        starts += 1
        clock.advance(LEASE)
        rescue(conn)
    view = read.run(conn, run_id)

    assert 3 == starts
    assert (RunState.FAILED, 3, 3) == (view.state, view.attempts, view.losses)
    assert (view.error["type"], view.finished_at) == ("WorkerLost", clock.now)
    assert [EventType.PHASE_RESCUED, EventType.RUN_FAILED] == [each.type for each in read.journal(conn, run_id)][-2:]


def test_spent_attempts_end_a_lost_run_with_losses_left(conn, clock):
    """
    INVARIANT: attempts never pass their maximum, however they end.

    Breaks if rescue looks at the losses alone.
    """
    run_id = queued_run(conn, max_attempts=2, max_losses=10)
    fail(conn, [failure(claim_again(conn, run_id))])
    claim_again(conn, run_id)
    clock.advance(LEASE)

    assert {run_id: RunState.FAILED} == rescue(conn)


def test_losses_and_errors_have_separate_budgets(conn, clock):
    run_id = queued_run(conn, max_attempts=10, max_losses=2)
    for _ in range(5):
        fail(conn, [failure(claim_again(conn, run_id))])
    claim_again(conn, run_id)
    clock.advance(LEASE)

    assert {run_id: RunState.QUEUED} == rescue(conn)


def test_a_retry_gives_a_lost_run_its_budget_of_losses_back(conn, clock):
    run_id = queued_run(conn, max_losses=1)
    claim_again(conn, run_id)
    clock.advance(LEASE)
    rescue(conn)
    retry(conn, run_id)
    claim_again(conn, run_id)

    assert 0 == row(conn, run_id)["losses"]


def test_a_lost_run_that_is_to_be_canceled_is_canceled(conn, clock):
    lost = claimed_run(conn, max_losses=1)
    cancel(conn, [lost.run_id])
    clock.advance(LEASE)

    assert {lost.run_id: RunState.CANCELED} == rescue(conn)
    assert (row(conn, lost.run_id)["finished_at"], row(conn, lost.run_id)["error"]) == (clock.now, None)
    assert EventType.RUN_CANCELED == read.journal(conn, lost.run_id)[-1].type


def test_one_call_gives_back_at_most_its_limit_the_oldest_first(conn, clock):
    """
    INVARIANT: a rescue takes no more than it was told to.

    Breaks if the picking sub-select is not materialised: PostgreSQL may run it once for each row (BUG #15715).
    """
    old = claimed_runs(conn, 4)
    clock.advance(timedelta(seconds=1))
    new = claimed_runs(conn, 4)
    clock.advance(LEASE)
    first = rescue(conn, limit=4)
    second = rescue(conn, limit=100)

    assert set(first) == {claim.run_id for claim in old}
    assert set(second) == {claim.run_id for claim in new}


def test_nothing_but_running_runs_is_rescued(conn, clock):
    queued_runs(conn, 3)
    clock.advance(timedelta(days=400))

    assert {} == rescue(conn)


def test_a_dead_process_gives_its_claims_back_at_once_and_nobody_elses(conn):
    dead = claimed_run(conn, how={"worker": "node:1"})
    alive = claimed_run(conn, how={"worker": "node:11"})

    assert {dead.run_id: RunState.QUEUED} == rescue_worker(conn, "node:1")
    assert 1 == row(conn, dead.run_id)["losses"]
    assert {"why": "its worker died", "worker": "node:1"} == read.journal(conn, dead.run_id)[-1].data
    assert finish(conn, alive) is not None


def test_a_dead_process_also_gives_back_what_it_claimed_with_a_completion(conn):
    second = finish(conn, claimed_run(conn, how={"worker": "node:7"})).claim

    assert {second.run_id: RunState.QUEUED} == rescue_worker(conn, "node:7")


def test_a_run_that_a_process_no_longer_holds_is_not_its_loss(conn):
    """
    INVARIANT: a process's death is charged only to what it held.

    Breaks if the worker's name stays on a run that was given back: a rescued run would be lost twice.
    """
    claimed = claimed_run(conn, how={"worker": "node:7"})
    fail(conn, [failure(claimed)])

    assert {} == rescue_worker(conn, "node:7")
