"""fail: an attempt ended without a result."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runclaim.events import EventType
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.fail import Verdict, fail
from runclaim.ledger.rescue import rescue
from runclaim.states import PhaseStatus, RunState
from tests.ledger.factories import (
    LEASE,
    MAX_ATTEMPTS,
    claim_again,
    claimed_run,
    claimed_runs,
    failure,
    finish,
    queued_run,
)
from tests.ledger.sql import row


def test_a_failed_attempt_is_queued_again_after_its_backoff(conn, clock, claimed_run):
    assert {claimed_run.run_id: RunState.QUEUED} == fail(conn, [failure(claimed_run, delay=timedelta(seconds=8))])
    found = row(conn, claimed_run.run_id)
    assert (found["available_at"], found["dispatch_due_at"]) == (clock.now + timedelta(seconds=8),) * 2
    assert (None,) * 4 == (found["owner"], found["worker"], found["lease_expires_at"], found["deadline_at"])
    assert (1, 0, 2, 0) == (found["attempts"], found["losses"], found["fence"], found["dispatches"])
    assert ({"type": "ValueError", "message": "no"}, None) == (found["error"], found["finished_at"])


def test_the_last_attempt_fails_the_run(conn, clock):
    """
    INVARIANT: a phase's body starts at most `max_attempts` times.

    Breaks if fail queues a run whose attempts are spent.
    """
    run_id = queued_run(conn)
    verdicts = [fail(conn, [failure(claim_again(conn, run_id))])[run_id] for _ in range(MAX_ATTEMPTS)]
    view = read.run(conn, run_id)

    assert [RunState.QUEUED] * (MAX_ATTEMPTS - 1) + [RunState.FAILED] == verdicts
    assert (view.finished_at, view.phases["plan"]) == (clock.now, PhaseStatus.FAILED)
    assert [EventType.PHASE_FAILED, EventType.RUN_FAILED] == [each.type for each in read.journal(conn, run_id)][-2:]


@pytest.mark.parametrize(
    "verdict, state, event, status, ended",
    [
        (Verdict.FAIL, RunState.FAILED, EventType.RUN_FAILED, PhaseStatus.FAILED, True),
        (Verdict.BLOCK, RunState.BLOCKED, EventType.RUN_BLOCKED, PhaseStatus.BLOCKED, False),
    ],
)
def test_a_verdict_ends_the_run_with_attempts_left(conn, claimed_run, verdict, state, event, status, ended):
    assert {claimed_run.run_id: state} == fail(conn, [failure(claimed_run, verdict)])
    view = read.run(conn, claimed_run.run_id)
    assert (view.state, view.phases["plan"], view.finished_at is not None) == (state, status, ended)
    assert read.journal(conn, claimed_run.run_id)[-1].type == event


def test_a_block_outranks_spent_attempts(conn):
    taken = claimed_run(conn, max_attempts=1)

    assert {taken.run_id: RunState.BLOCKED} == fail(conn, [failure(taken, Verdict.BLOCK)])


@pytest.mark.parametrize("verdict", Verdict)
def test_a_requested_cancel_outranks_every_verdict(conn, clock, verdict):
    taken = claimed_run(conn)
    cancel(conn, [taken.run_id])

    assert {taken.run_id: RunState.CANCELED} == fail(conn, [failure(taken, verdict)])
    assert read.run(conn, taken.run_id).finished_at == clock.now
    assert EventType.RUN_CANCELED == read.journal(conn, taken.run_id)[-1].type


def test_errors_do_not_use_up_the_budget_for_losses(conn, claimed_run):
    fail(conn, [failure(claimed_run)])

    assert 0 == row(conn, claimed_run.run_id)["losses"]


def test_a_stale_worker_cannot_fail_a_run_that_moved_on(conn, clock, claimed_run):
    """
    INVARIANT: a lost claim ends nobody else's attempt.

    Breaks if fail stops using `held`.
    """
    stale = claimed_run
    clock.advance(LEASE)
    rescue(conn)
    claim_again(conn, stale.run_id)
    before = row(conn, stale.run_id)

    assert {} == fail(conn, [failure(stale, Verdict.FAIL)])
    assert row(conn, stale.run_id) == before


def test_an_attempt_that_completed_cannot_fail(conn, claimed_run):
    finish(conn, claimed_run)

    assert {} == fail(conn, [failure(claimed_run, Verdict.FAIL)])


def test_many_attempts_fail_each_by_its_own_verdict(conn):
    retried, failed, blocked = claimed_runs(conn, 3)

    assert {
        retried.run_id: RunState.QUEUED,
        failed.run_id: RunState.FAILED,
        blocked.run_id: RunState.BLOCKED,
    } == fail(conn, [failure(retried), failure(failed, Verdict.FAIL), failure(blocked, Verdict.BLOCK)])


def test_a_failure_after_completed_phases_starts_again_at_the_failed_one(conn, claimed_run):
    second = finish(conn, claimed_run).claim
    fail(conn, [failure(second)])
    again = claim_again(conn, claimed_run.run_id)

    assert ("deliver", 2) == (again.phase, again.attempt)
    assert {"plan": "done"} == read.results(conn, claimed_run.run_id)
