"""complete: a phase's result is recorded once, and its run moves on."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from runclaim.events import EventType
from runclaim.keys import nonce
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.claim import ClaimRequest
from runclaim.ledger.complete import complete, completed
from runclaim.ledger.completion import Moved
from runclaim.ledger.fail import fail
from runclaim.ledger.release import release
from runclaim.ledger.rescue import rescue
from runclaim.states import PhaseStatus, RunState
from tests.ledger import audit
from tests.ledger.factories import (
    DISPATCH_AFTER,
    LEASE,
    MAX_DURATION,
    WORKER,
    claim_again,
    claimed_run,
    claimed_runs,
    completion,
    failure,
    finish,
    queued_run,
    take,
    wanted,
)
from tests.ledger.sql import count, row


def phase_results(conn, run_id):
    found = conn.exec_driver_sql(
        "SELECT phase, position, fence, owner, worker, attempts, skipped FROM runclaim_phase_results ORDER BY position"
    )
    return [tuple(each) for each in found]


def last_phase(conn, **what):
    """The claim of a run's last phase."""
    taken = claimed_run(conn, **what)
    while not taken.is_last:
        taken = finish(conn, taken).claim
    return taken


def test_a_completion_claims_the_next_phase_in_the_same_statement(conn, clock, claimed_run):
    clock.advance(timedelta(seconds=10))
    given = completion(claimed_run, max_attempts=7)

    moved = complete(conn, [given])[claimed_run.run_id]

    assert (RunState.RUNNING, 2) == (moved.state, moved.fence)
    assert {"run_id": claimed_run.run_id, "fence": 2, "owner": given.next.owner} == moved.claim.proof()
    assert ("deliver", 1) == (moved.claim.phase, moved.claim.cursor)
    assert (1, 7) == (moved.claim.attempt, moved.claim.max_attempts)
    assert (moved.claim.input, moved.claim.key) == (claimed_run.input, claimed_run.key)
    found = row(conn, claimed_run.run_id)
    assert (found["state"], found["phase"], found["cursor"], found["owner"]) == (
        "running", "deliver", 1, given.next.owner
    )  # fmt: skip
    assert (found["lease_expires_at"], found["deadline_at"]) == (clock.now + LEASE, clock.now + MAX_DURATION)
    assert (1, 7, WORKER) == (found["attempts"], found["max_attempts"], found["worker"])


def test_the_lease_of_the_next_phase_never_outlasts_its_deadline(conn, clock, claimed_run):
    finish(conn, claimed_run, lease=timedelta(minutes=10), max_duration=timedelta(minutes=1))
    found = row(conn, claimed_run.run_id)

    assert found["lease_expires_at"] == found["deadline_at"] == clock.now + timedelta(minutes=1)


def test_a_completion_records_what_the_body_gave_and_who_gave_it(conn, clock, claimed_run):
    finish(conn, claimed_run, result='{"files":["a.py"]}')

    assert {"plan": {"files": ["a.py"]}} == read.results(conn, claimed_run.run_id)
    assert [("plan", 0, 1, claimed_run.owner, WORKER, 1, None)] == phase_results(conn, claimed_run.run_id)
    assert {
        "plan": PhaseStatus.COMPLETE,
        "deliver": PhaseStatus.ACTIVE,
        "compound": PhaseStatus.PENDING,
    } == read.run(conn, claimed_run.run_id).phases


@pytest.mark.parametrize("result", ["null", "0", "false", '""', '"1"', "[]", '{"é":"\U0001f600"}', '"\\\\u0000"'])
def test_any_json_value_is_a_result(conn, claimed_run, result):
    finish(conn, claimed_run, result=result)

    assert {"plan": json.loads(result)} == read.results(conn, claimed_run.run_id)


def test_a_completion_through_the_broker_queues_the_next_phase(conn, clock, claimed_run):
    moved = finish(conn, claimed_run, inline=False, queue="slow", max_attempts=9)
    found = row(conn, claimed_run.run_id)

    assert moved == Moved(claimed_run.run_id, RunState.QUEUED, 2, None)
    assert ("deliver", "slow", 1) == (found["phase"], found["queue"], found["cursor"])
    assert (None,) * 4 == (found["owner"], found["worker"], found["lease_expires_at"], found["deadline_at"])
    assert (0, 9, 0, 0) == (found["attempts"], found["max_attempts"], found["losses"], found["dispatches"])
    assert (found["available_at"], found["dispatch_due_at"]) == (clock.now, clock.now + DISPATCH_AFTER)
    assert "deliver" == claim_again(conn, claimed_run.run_id).phase


def test_the_last_completion_ends_the_run(conn, clock):
    taken = last_phase(conn)
    clock.advance(timedelta(minutes=1))

    assert finish(conn, taken) == Moved(taken.run_id, RunState.SUCCEEDED, 4, None)
    view = read.run(conn, taken.run_id)
    assert (view.state, view.phase, view.finished_at) == (RunState.SUCCEEDED, "compound", clock.now)
    assert {PhaseStatus.COMPLETE} == set(view.phases.values())
    assert [
        EventType.RUN_ENQUEUED,
        EventType.RUN_STARTED,
        *[EventType.PHASE_STARTED, EventType.PHASE_COMPLETED] * 3,
        EventType.RUN_SUCCEEDED,
    ] == [each.type for each in read.journal(conn, taken.run_id)]


def test_a_requested_cancel_ends_the_run_at_the_phase_boundary_and_keeps_the_result(conn, claimed_run):
    cancel(conn, [claimed_run.run_id])

    assert finish(conn, claimed_run) == Moved(claimed_run.run_id, RunState.CANCELED, 2, None)
    assert {"plan": "done"} == read.results(conn, claimed_run.run_id)
    assert EventType.RUN_CANCELED == read.journal(conn, claimed_run.run_id)[-1].type


def test_a_cancel_that_comes_in_the_last_phase_comes_too_late(conn):
    taken = last_phase(conn)
    cancel(conn, [taken.run_id])

    assert finish(conn, taken).state is RunState.SUCCEEDED


def test_a_skipped_phase_is_complete_without_a_result_and_says_why(conn, claimed_run):
    finish(conn, claimed_run, result="null", skipped="nothing to do")

    assert "nothing to do" == phase_results(conn, claimed_run.run_id)[0][-1]
    assert EventType.PHASE_SKIPPED in [each.type for each in read.journal(conn, claimed_run.run_id)]


def test_a_completion_clears_the_error_and_the_budgets_of_the_phase_before(conn, clock):
    run_id = queued_run(conn)
    fail(conn, [failure(claim_again(conn, run_id))])
    claim_again(conn, run_id)
    clock.advance(LEASE)
    rescue(conn)
    third = claim_again(conn, run_id)
    before = row(conn, run_id)
    finish(conn, third)
    after = row(conn, run_id)

    assert (3, 1, "ValueError") == (before["attempts"], before["losses"], before["error"]["type"])
    assert (1, 0, None) == (after["attempts"], after["losses"], after["error"])
    assert 3 == phase_results(conn, run_id)[0][5]


def test_a_doubled_completion_is_refused(conn, claimed_run):
    """
    INVARIANT: a phase completes once.

    Breaks if `held` stops comparing fence and owner and the cursor goes unchecked too: the state alone is "running"
    for the next phase.
    """
    given = completion(claimed_run)
    complete(conn, [given])
    before = row(conn, claimed_run.run_id)

    assert {} == complete(conn, [given])
    assert row(conn, claimed_run.run_id) == before
    assert 1 == count(conn, "phase_results")


def test_a_stale_worker_cannot_complete_a_rescued_run(conn, clock, claimed_run):
    """
    INVARIANT: only the newest claim on a run can complete its phase.

    Breaks if `held` stops comparing the fence or the owner: the state alone is "running" again for the second worker.
    """
    stale = claimed_run
    clock.advance(LEASE)
    rescue(conn)
    fresh = claim_again(conn, stale.run_id)

    assert finish(conn, stale, result='"stale"') is None
    assert "deliver" == finish(conn, fresh, result='"fresh"').claim.phase
    assert {"plan": "fresh"} == read.results(conn, stale.run_id)


def test_a_stale_worker_cannot_complete_a_rescued_run_that_nobody_has_claimed(conn, clock, claimed_run):
    clock.advance(LEASE)
    rescue(conn)

    assert finish(conn, claimed_run) is None


def test_a_lapsed_lease_that_nobody_has_taken_can_still_be_completed(conn, clock, claimed_run):
    clock.advance(MAX_DURATION * 2)

    assert finish(conn, claimed_run).state is RunState.RUNNING


def test_a_worker_that_a_failover_gave_the_same_fence_is_told_apart_by_its_owner(conn, claimed_run):
    """
    INVARIANT: a failover that loses the last commits may repeat a fence; the owner still decides.

    Breaks if `held` stops comparing the owner. (The one guard that nothing else stands in for.)
    """
    stale = claimed_run
    conn.exec_driver_sql("UPDATE runclaim_runs SET owner = 'another'")

    assert finish(conn, stale) is None


def test_a_worker_that_used_one_nonce_for_two_claims_is_told_apart_by_its_fence(conn, queued_run):
    """
    INVARIANT: the fence decides where the owner does not.

    Breaks if `held` stops comparing the fence.
    """
    stale = take(conn, ClaimRequest(queued_run, 0, "used twice"))
    release(conn, [stale])
    fresh = take(conn, ClaimRequest(queued_run, 2, "used twice"))

    assert finish(conn, stale) is None
    assert finish(conn, fresh) is not None


def test_a_claim_of_another_phase_at_the_same_fence_and_owner_completes_nothing(conn, claimed_run):
    """
    INVARIANT: phases complete in order.

    Breaks if complete stops comparing the cursor.
    """
    conn.exec_driver_sql("UPDATE runclaim_runs SET cursor = 1, phase = 'deliver'")

    assert finish(conn, claimed_run) is None


def test_a_phase_has_one_result_whatever_the_guards_before_it_let_through(conn, claimed_run):
    """
    INVARIANT: the primary key of the results is the second guard, independent of the first.

    Breaks if the results lose their primary key, or a completion swallows its violation.
    """
    finish(conn, claimed_run)
    conn.exec_driver_sql(
        f"UPDATE runclaim_runs SET cursor = 0, fence = {claimed_run.fence}, owner = '{claimed_run.owner}'"
    )
    with pytest.raises(IntegrityError), conn.begin_nested():
        finish(conn, claimed_run)

    assert 1 == count(conn, "phase_results")
    audit.forget(conn)


def test_many_completions_settle_in_one_call_and_the_lost_ones_cost_only_themselves(conn):
    lost, inline, broker = claimed_runs(conn, 3)
    fail(conn, [failure(lost)])
    last = last_phase(conn)

    moved = complete(conn, [completion(lost), completion(inline), completion(broker, inline=False), completion(last)])

    assert {
        inline.run_id: RunState.RUNNING,
        broker.run_id: RunState.QUEUED,
        last.run_id: RunState.SUCCEEDED,
    } == {run_id: each.state for run_id, each in moved.items()}
    assert {} == read.results(conn, lost.run_id)


def test_completing_nothing_changes_nothing(conn, claimed_run):
    assert {} == complete(conn, [])


@pytest.mark.parametrize("inline", [True, False])
def test_a_completion_is_read_back_as_it_was_told(conn, claimed_run, inline):
    given = completion(claimed_run, inline=inline)
    told = complete(conn, [given])

    assert completed(conn, [given]) == told


def test_a_last_completion_is_read_back_as_it_was_told(conn):
    given = completion(last_phase(conn))
    told = complete(conn, [given])

    assert completed(conn, [given]) == told


def test_a_completion_that_did_not_commit_is_not_read_back(conn, claimed_run):
    assert {} == completed(conn, [completion(claimed_run)])


def test_another_workers_completion_is_not_read_back_as_ours(conn, clock, claimed_run):
    """
    INVARIANT: a completion told to its caller is the caller's own.

    Breaks if the read-back asks only whether the phase has a result.
    """
    stale = claimed_run
    clock.advance(LEASE)
    rescue(conn)
    finish(conn, claim_again(conn, stale.run_id))

    assert {} == completed(conn, [completion(stale)])


def test_a_completion_whose_next_claim_is_lost_is_read_back_without_that_claim(conn, clock, claimed_run):
    given = completion(claimed_run)
    complete(conn, [given])
    clock.advance(LEASE)
    rescue(conn)
    again = take(conn, wanted(conn, claimed_run.run_id), phase="deliver", worker=nonce())

    assert completed(conn, [given])[claimed_run.run_id].claim is None
    assert again is not None
