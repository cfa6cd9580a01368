"""claim: queued to running, for one worker."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runclaim.events import EventType
from runclaim.keys import nonce, uuid7
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.claim import ClaimRequest, claimed
from runclaim.ledger.fail import fail
from runclaim.ledger.release import release
from runclaim.ledger.retry import retry
from runclaim.states import PhaseStatus, RunState
from tests.ledger.factories import (
    LEASE,
    MAX_ATTEMPTS,
    MAX_DURATION,
    PHASES,
    WORKER,
    blocked_run,
    canceled_run,
    claim_again,
    claimed_run,
    failed_run,
    failure,
    finish,
    queued_run,
    queued_runs,
    succeeded_run,
    superseded_run,
    take,
    take_all,
    waiting_run,
    wanted,
)
from tests.ledger.sql import row


def test_a_claim_tells_its_worker_everything_the_body_needs(conn):
    run_id = queued_run(conn, "pr-7", subject="acme", input={"number": 7}, queue="slow", priority=4)
    asked = wanted(conn, run_id)

    claim = take(conn, asked)

    assert {"run_id": run_id, "fence": 1, "owner": asked.owner} == claim.proof()
    assert ("review", "pr-7", "acme", {"number": 7}) == (claim.flow, claim.key, claim.subject, claim.input)
    assert (PHASES, 0, "plan") == (claim.phases, claim.cursor, claim.phase)
    assert (1, MAX_ATTEMPTS, "slow", 4) == (claim.attempt, claim.max_attempts, claim.queue, claim.priority)
    assert not claim.is_last


@pytest.mark.parametrize("headers", [None, {}, {"tenant": "emil"}])
def test_a_claim_tells_the_headers_that_its_run_was_enqueued_with(conn, headers):
    """Also the next phase's claim, which a completion makes. No headers are something else than empty ones."""
    run_id = queued_run(conn, headers=headers)

    claim = take(conn, wanted(conn, run_id))
    following = finish(conn, claim).claim

    assert [headers] * 3 == [claim.headers, following.headers, read.run(conn, run_id).headers]


def test_a_claim_is_a_lease_a_deadline_and_an_owner_on_the_run(conn, clock, claimed_run):
    found = row(conn, claimed_run.run_id)

    assert (found["state"], found["owner"], found["worker"]) == ("running", claimed_run.owner, WORKER)
    assert (found["lease_expires_at"], found["deadline_at"]) == (clock.now + LEASE, clock.now + MAX_DURATION)
    assert (found["attempts"], found["losses"], found["started_at"]) == (1, 0, clock.now)
    assert read.run(conn, claimed_run.run_id).phases["plan"] is PhaseStatus.ACTIVE


def test_a_lease_never_outlasts_the_deadline(conn, clock):
    taken = claimed_run_with(conn, lease=timedelta(minutes=10), max_duration=timedelta(minutes=1))
    found = row(conn, taken.run_id)

    assert found["lease_expires_at"] == found["deadline_at"] == clock.now + timedelta(minutes=1)


def test_a_doubled_message_claims_once(conn, queued_run):
    """
    INVARIANT: a message claims only the run as it stood when the message was sent.

    Breaks if claim stops comparing the state and the fence that was seen.
    """
    message = wanted(conn, queued_run)

    assert take(conn, message) is not None
    assert take(conn, ClaimRequest(message.run_id, message.seen, nonce())) is None


def test_a_message_from_before_a_retry_claims_nothing(conn):
    """
    INVARIANT: a late message never starts a later attempt (Kafka's torn transactions).

    Breaks if claim stops comparing the fence that was seen: the run is queued again, and its state alone says yes.
    """
    run_id = queued_run(conn)
    late = wanted(conn, run_id)
    fail(conn, [failure(take(conn, wanted(conn, run_id)))])

    assert {run_id: RunState.QUEUED} == read.states(conn, [run_id])
    assert take(conn, late) is None
    assert 2 == take(conn, wanted(conn, run_id)).attempt


@pytest.mark.parametrize(
    "made", [waiting_run, blocked_run, failed_run, succeeded_run, canceled_run, superseded_run, claimed_run]
)
def test_only_a_queued_run_can_be_claimed(conn, made):
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    before = row(conn, run_id)

    assert take(conn, wanted(conn, run_id)) is None
    assert row(conn, run_id) == before


def test_a_run_that_does_not_exist_is_not_ours_to_take(conn):
    assert take(conn, ClaimRequest(uuid7(), 0, nonce())) is None


def test_a_run_that_waits_out_a_backoff_is_not_claimed_early(conn, clock):
    run_id = queued_run(conn)
    fail(conn, [failure(claim_again(conn, run_id), delay=timedelta(minutes=1))])
    early = take(conn, wanted(conn, run_id))
    clock.advance(timedelta(minutes=1))

    assert early is None
    assert 2 == take(conn, wanted(conn, run_id)).attempt


def test_a_worker_that_does_not_know_the_phase_leaves_the_run_alone(conn):
    """
    INVARIANT: a phase list is pinned at enqueue; a worker of another release burns no attempt.

    Breaks if claim stops comparing the phase or the flow.
    """
    run_id = queued_run(conn, phases=("prepare", "plan"))
    before = row(conn, run_id)

    assert take(conn, wanted(conn, run_id), phase="plan") is None
    assert take(conn, wanted(conn, run_id), flow="deploy", phase="prepare") is None
    assert row(conn, run_id) == before
    assert ("prepare", "plan") == take(conn, wanted(conn, run_id), phase="prepare").phases


def test_an_attempt_is_counted_when_it_starts(conn, claimed_run):
    """
    INVARIANT: a crash cannot hide an attempt.

    Breaks if the attempt is counted when it ends: a body that kills its process would start for ever.
    """
    assert 1 == row(conn, claimed_run.run_id)["attempts"]


def test_a_run_whose_attempts_are_spent_cannot_be_claimed(conn):
    run_id = queued_run(conn, max_attempts=1)
    conn.exec_driver_sql("UPDATE runclaim_runs SET attempts = 1")

    assert take(conn, wanted(conn, run_id)) is None


def test_a_queued_run_that_is_to_be_canceled_cannot_be_claimed(conn):
    run_id = queued_run(conn)
    conn.exec_driver_sql("UPDATE runclaim_runs SET cancel_requested_at = enqueued_at")

    assert take(conn, wanted(conn, run_id)) is None


def test_many_runs_are_claimed_at_once_and_the_others_left_out(conn):
    free = queued_runs(conn, 3)
    taken, gone = claimed_run(conn).run_id, canceled_run(conn)

    claims = take_all(conn, [wanted(conn, run_id) for run_id in [*free, taken, gone]])

    assert {claim.run_id for claim in claims} == set(free)
    assert 3 == len({claim.owner for claim in claims})


def test_a_run_that_one_delivery_names_twice_is_claimed_once(conn, queued_run):
    asked = [wanted(conn, queued_run), wanted(conn, queued_run)]

    claims = take_all(conn, asked)

    assert 1 == len(claims)
    assert read.standing(conn, queued_run).owner == claims[0].owner


def test_claiming_nothing_claims_nothing(conn, queued_run):
    assert [] == take_all(conn, [])


def test_a_claim_is_read_back_by_its_own_nonce_only(conn, queued_run):
    ours = wanted(conn, queued_run)
    claim = take(conn, ours)

    assert [claim] == claimed(conn, [ours])
    assert [] == claimed(conn, [ClaimRequest(queued_run, ours.seen, nonce())])


def test_a_claim_that_was_lost_meanwhile_is_not_read_back(conn, queued_run):
    ours = wanted(conn, queued_run)
    release(conn, [take(conn, ours)])

    assert [] == claimed(conn, [ours])


def test_the_journal_says_once_that_a_run_started_and_each_time_that_a_phase_did(conn):
    run_id = queued_run(conn)
    release(conn, [claim_again(conn, run_id)])
    finish(conn, claim_again(conn, run_id))
    kinds = [event.type for event in read.journal(conn, run_id)]

    assert 1 == kinds.count(EventType.RUN_STARTED)
    assert 3 == kinds.count(EventType.PHASE_STARTED)


def test_a_retried_run_keeps_the_time_of_its_first_start(conn, clock):
    lost = failed_run(conn)
    began = clock.now
    clock.advance(timedelta(hours=1))
    retry(conn, lost.run_id)
    claim_again(conn, lost.run_id)

    assert row(conn, lost.run_id)["started_at"] == began


def test_a_canceled_run_is_not_claimed_by_the_message_that_was_under_way(conn, queued_run):
    message = wanted(conn, queued_run)
    cancel(conn, [queued_run])

    assert take(conn, message) is None


def claimed_run_with(conn, **how):
    return claimed_run(conn, how=how)
