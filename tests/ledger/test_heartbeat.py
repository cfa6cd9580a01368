"""heartbeat: all claims of a process in one statement."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runclaim.ledger.cancel import cancel
from runclaim.ledger.fail import fail
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.release import release
from runclaim.ledger.rescue import rescue
from tests.ledger.factories import (
    LEASE,
    claim_again,
    claimed_run,
    claimed_runs,
    failure,
    finish,
    queued_run,
)
from tests.ledger.sql import row


def test_a_beat_extends_the_lease_and_nothing_else(conn, clock, claimed_run):
    before = row(conn, claimed_run.run_id)
    clock.advance(timedelta(seconds=30))

    assert {claimed_run.run_id: False} == heartbeat(conn, [(claimed_run, LEASE)])
    assert row(conn, claimed_run.run_id) == before | {"lease_expires_at": clock.now + LEASE}


def test_a_beat_extends_no_lease_past_the_deadline(conn, clock):
    """
    INVARIANT: a hung body that goes on beating loses its claim at the deadline.

    Breaks if the new lease is not capped by the deadline, or a beat after it still counts.
    """
    taken = claimed_run(conn, how={"max_duration": timedelta(seconds=90)})
    deadline = clock.now + timedelta(seconds=90)
    clock.advance(timedelta(seconds=50))
    heartbeat(conn, [(taken, LEASE)])

    assert row(conn, taken.run_id)["lease_expires_at"] == deadline


def test_a_beat_after_the_deadline_finds_the_claim_lost(conn, clock):
    """
    INVARIANT: no beat revives a claim whose deadline has passed, also before anybody rescued it.

    Breaks if heartbeat stops comparing the clock with the deadline.
    """
    taken = claimed_run(conn, how={"max_duration": timedelta(seconds=90)})
    clock.advance(timedelta(seconds=90))

    assert {} == heartbeat(conn, [(taken, LEASE)])
    assert [taken.run_id] == list(rescue(conn))


def test_a_beat_revives_a_lapsed_lease_that_nobody_has_taken(conn, clock, claimed_run):
    clock.advance(LEASE * 2)

    assert {claimed_run.run_id: False} == heartbeat(conn, [(claimed_run, LEASE)])
    assert {} == rescue(conn)


def test_a_beat_tells_that_the_run_is_to_be_canceled(conn, claimed_run):
    cancel(conn, [claimed_run.run_id])

    assert {claimed_run.run_id: True} == heartbeat(conn, [(claimed_run, LEASE)])


def test_each_claim_of_a_process_has_its_own_lease(conn, clock):
    short, long = claimed_runs(conn, 2)
    heartbeat(conn, [(short, timedelta(seconds=5)), (long, timedelta(seconds=500))])

    assert row(conn, short.run_id)["lease_expires_at"] == clock.now + timedelta(seconds=5)
    assert row(conn, long.run_id)["lease_expires_at"] == clock.now + timedelta(seconds=500)


def supersede(conn, claim):
    queued_run(conn, subject=claim.subject)


def lose(conn, claim):
    conn.exec_driver_sql("UPDATE runclaim_runs SET lease_expires_at = enqueued_at")
    rescue(conn)
    claim_again(conn, claim.run_id)


@pytest.mark.parametrize(
    "moved_on",
    [
        finish,
        lambda conn, claim: fail(conn, [failure(claim)]),
        lambda conn, claim: release(conn, [claim]),
        supersede,
        lose,
    ],
    ids=["completed", "failed", "released", "superseded", "rescued and claimed"],
)
def test_a_claim_whose_run_moved_on_is_missing_from_the_answer(conn, moved_on):
    """
    INVARIANT: a beat never keeps alive what its process no longer holds.

    Breaks if heartbeat stops using `held`.
    """
    stale = claimed_run(conn, subject="pr-7")
    moved_on(conn, stale)
    before = row(conn, stale.run_id)

    assert {} == heartbeat(conn, [(stale, LEASE * 5)])
    assert row(conn, stale.run_id) == before


def test_one_lost_claim_among_many_costs_only_itself(conn):
    lost, *kept = claimed_runs(conn, 4)
    release(conn, [lost])

    assert heartbeat(conn, [(claim, LEASE) for claim in [lost, *kept]]) == {claim.run_id: False for claim in kept}


def test_a_process_without_claims_beats_for_nothing(conn, claimed_run):
    assert {} == heartbeat(conn, [])


def test_a_heartbeat_writes_to_no_index(postgres):
    """
    INVARIANT: what happens four times a lease to all that runs leaves no dead index entries behind.

    Breaks if an index has the lease among its columns or in its condition, or if pages have no room for a new version.
    """
    with postgres.begin() as conn:
        taken = claimed_run(conn)
        before = updates(conn)
        heartbeat(conn, [(taken, LEASE)])
        after = updates(conn)

    assert [1, 1] == [now - then for now, then in zip(after, before, strict=True)]


def updates(conn):
    """How many rows of runs this transaction has updated, and how many of them beside the old version (HOT)."""
    return conn.exec_driver_sql(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'runclaim_runs'"
    ).one()
