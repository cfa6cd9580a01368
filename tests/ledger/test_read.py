"""read, the journal and the counters: what the ledger tells, and what it keeps beside the runs."""

from __future__ import annotations

from datetime import UTC

import pytest

from runclaim.events import EventType
from runclaim.ledger import counters, read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.fail import fail
from runclaim.ledger.journal import Entry, append
from runclaim.states import RunState
from tests.ledger.factories import (
    blocked_run,
    claimed_run,
    failed_run,
    failure,
    finish,
    queued_run,
    succeeded_run,
)
from tests.ledger.sql import count

NO_RUN = "00000000-0000-7000-8000-000000000000"


@pytest.mark.parametrize("run_id", [NO_RUN, "", "pr-7", "'; DROP TABLE runclaim_runs; --", "é" * 36])
def test_what_is_no_run_is_told_as_none_whatever_it_looks_like(conn, run_id):
    assert read.standing(conn, run_id) is None
    assert read.run(conn, run_id) is None
    assert {} == read.states(conn, [run_id])
    assert {} == read.results(conn, run_id)
    assert [] == read.journal(conn, run_id)


def test_one_name_that_is_no_run_hides_no_other(conn, queued_run):
    assert {queued_run: RunState.QUEUED} == read.states(conn, ["pr-7", queued_run])
    assert {queued_run: RunState.CANCELED} == cancel(conn, ["pr-7", queued_run])


def test_a_standing_tells_who_may_move_the_run(conn, claimed_run):
    cancel(conn, [claimed_run.run_id])

    assert read.standing(conn, claimed_run.run_id) == read.Standing(RunState.RUNNING, 1, claimed_run.owner, True)


def test_a_read_back_takes_no_other_runs_event_for_its_own(conn):
    """
    INVARIANT: an attempt counts as settled only when its own run's journal says so.

    Breaks if the events are found by fence and type alone: the first claims of two runs have the same fence.
    """
    failed, held = claimed_run(conn), claimed_run(conn)
    fail(conn, [failure(failed)])
    states = [
        read.settled(conn, claim.run_id, fence=claim.fence, kind=EventType.PHASE_FAILED) for claim in (failed, held)
    ]

    assert failed.fence == held.fence
    assert [RunState.QUEUED, None] == states


def test_times_are_aware_and_in_utc(conn, claimed_run):
    view = read.run(conn, claimed_run.run_id)

    assert {UTC} == {view.enqueued_at.tzinfo, view.started_at.tzinfo}
    assert {UTC} == {event.at.tzinfo for event in read.journal(conn, claimed_run.run_id)}


def test_results_are_those_of_the_runs_own_complete_phases(conn):
    first, second = claimed_run(conn), claimed_run(conn)
    finish(conn, finish(conn, first, result="1").claim, result="[2]")
    finish(conn, second, result="3")

    assert {"plan": 1, "deliver": [2]} == read.results(conn, first.run_id)


def test_runs_are_counted_by_flow_and_state(conn):
    queued_run(conn), queued_run(conn), blocked_run(conn), failed_run(conn), succeeded_run(conn, flow="review")
    queued_run(conn, flow="deploy")

    assert {
        ("review", RunState.QUEUED): 2,
        ("review", RunState.BLOCKED): 1,
        ("review", RunState.FAILED): 1,
        ("review", RunState.SUCCEEDED): 1,
        ("deploy", RunState.QUEUED): 1,
    } == read.counts(conn)


def test_the_journal_keeps_the_order_of_one_statement(conn, queued_run):
    append(conn, [Entry(queued_run, EventType.PHASE_STARTED, 1, "plan", attempt) for attempt in range(1, 41)])

    assert [each.attempt for each in read.journal(conn, queued_run)[1:]] == list(range(1, 41))


def test_the_journal_keeps_any_json_beside_an_event(conn, queued_run):
    data = {"é": [1, None, "\U0001f600"], "by": "ann"}
    append(conn, [Entry(queued_run, EventType.RUN_RETRIED, 1, data=data)])

    assert read.journal(conn, queued_run)[-1].data == data


def test_appending_nothing_writes_nothing(conn):
    append(conn, [])

    assert 0 == count(conn, "events")


def test_counters_add_up_by_name_and_flow(conn):
    counters.add(conn, {("duplicates", "review"): 2, ("duplicates", "deploy"): 1})
    counters.add(conn, {("duplicates", "review"): 3})
    counters.add(conn, {})

    assert {("duplicates", "review"): 5, ("duplicates", "deploy"): 1} == counters.totals(conn)
