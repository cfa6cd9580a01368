"""release: a worker that shuts down gives its claims back."""

from __future__ import annotations

from runclaim.events import EventType
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.release import release
from runclaim.ledger.rescue import rescue
from runclaim.states import RunState
from tests.ledger.factories import LEASE, claim_again, claimed_runs, due, finish, queued_run
from tests.ledger.sql import row


def test_ten_deploys_burn_no_attempt(conn):
    """
    INVARIANT: a rolling restart costs no attempt and no loss.

    Breaks if release keeps the attempt that claim counted, or counts a loss.
    """
    run_id = queued_run(conn, max_attempts=1)
    for _ in range(10):
        taken = claim_again(conn, run_id)
        assert {run_id: RunState.QUEUED} == release(conn, [taken])
    found = row(conn, run_id)

    assert (0, 0, 20) == (found["attempts"], found["losses"], found["fence"])
    assert (None,) * 4 == (found["owner"], found["worker"], found["lease_expires_at"], found["deadline_at"])
    assert 1 == claim_again(conn, run_id).attempt


def test_a_released_run_is_due_at_once(conn, clock, claimed_run):
    release(conn, [claimed_run])

    assert [claimed_run.run_id] == [each.run_id for each in due(conn)]
    assert EventType.PHASE_RELEASED == read.journal(conn, claimed_run.run_id)[-1].type


def test_a_phase_that_was_claimed_with_the_completion_before_it_is_released_too(conn, claimed_run):
    second = finish(conn, claimed_run).claim
    release(conn, [second])

    assert "deliver" == claim_again(conn, claimed_run.run_id).phase


def test_releasing_a_run_that_is_to_be_canceled_cancels_it(conn, clock, claimed_run):
    cancel(conn, [claimed_run.run_id])

    assert {claimed_run.run_id: RunState.CANCELED} == release(conn, [claimed_run])
    assert read.run(conn, claimed_run.run_id).finished_at == clock.now
    assert EventType.RUN_CANCELED == read.journal(conn, claimed_run.run_id)[-1].type


def test_a_stale_worker_cannot_release_a_run_that_moved_on(conn, clock, claimed_run):
    """
    INVARIANT: a lost claim gives back nobody else's attempt.

    Breaks if release stops using `held`: the fresh worker's attempt would be started twice.
    """
    stale = claimed_run
    clock.advance(LEASE)
    rescue(conn)
    claim_again(conn, stale.run_id)
    before = row(conn, stale.run_id)

    assert {} == release(conn, [stale])
    assert row(conn, stale.run_id) == before


def test_a_claim_is_released_once(conn, claimed_run):
    release(conn, [claimed_run])

    assert {} == release(conn, [claimed_run])
    assert 0 == row(conn, claimed_run.run_id)["attempts"]


def test_all_claims_of_a_process_are_released_at_once(conn):
    claims = claimed_runs(conn, 3)

    assert release(conn, claims) == {claim.run_id: RunState.QUEUED for claim in claims}
