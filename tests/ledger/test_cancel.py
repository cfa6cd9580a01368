"""cancel: at once where nobody holds the run, by request where somebody does."""

from __future__ import annotations

import pytest

from runclaim.events import EventType
from runclaim.keys import uuid7
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.states import RunState
from tests.ledger.factories import (
    blocked_run,
    canceled_run,
    claimed_run,
    failed_run,
    finish,
    queued_run,
    succeeded_run,
    superseded_run,
    waiting_run,
)
from tests.ledger.sql import row


@pytest.mark.parametrize("made", [queued_run, waiting_run, blocked_run])
def test_a_run_that_nobody_holds_is_canceled_at_once(conn, clock, made):
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    fence = row(conn, run_id)["fence"]

    assert {run_id: RunState.CANCELED} == cancel(conn, [run_id], by="ann")
    after = row(conn, run_id)
    assert (after["state"], after["fence"], after["finished_at"]) == ("canceled", fence + 1, clock.now)
    last = read.journal(conn, run_id)[-1]
    assert (last.type, last.data, last.fence) == (EventType.RUN_CANCELED, {"by": "ann"}, fence + 1)


def test_a_running_run_is_asked_and_its_claim_stays_good(conn, clock, claimed_run):
    """
    INVARIANT: cancel takes nobody's claim away; a completion that is under way counts.

    Breaks if cancel ends a running run, or raises its fence.
    """
    assert {claimed_run.run_id: RunState.RUNNING} == cancel(conn, [claimed_run.run_id], by="ann")
    view = read.run(conn, claimed_run.run_id)
    assert (view.state, view.fence, view.cancel_requested) == (RunState.RUNNING, claimed_run.fence, True)
    assert EventType.RUN_CANCEL_REQUESTED == read.journal(conn, claimed_run.run_id)[-1].type
    assert finish(conn, claimed_run).state is RunState.CANCELED


def test_asking_twice_changes_nothing(conn, clock, claimed_run):
    cancel(conn, [claimed_run.run_id])
    before = row(conn, claimed_run.run_id)

    assert {} == cancel(conn, [claimed_run.run_id])
    assert row(conn, claimed_run.run_id) == before


@pytest.mark.parametrize("made", [failed_run, succeeded_run, canceled_run, superseded_run])
def test_a_run_that_has_ended_stays_as_it_ended(conn, made):
    """
    INVARIANT: terminal states absorb.

    Breaks if cancel stops comparing the state.
    """
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    before = row(conn, run_id)

    assert {} == cancel(conn, [run_id])
    assert row(conn, run_id) == before


def test_many_runs_are_canceled_at_once_and_the_others_left_out(conn):
    queued, running, ended = queued_run(conn), claimed_run(conn).run_id, succeeded_run(conn)

    assert {
        queued: RunState.CANCELED,
        running: RunState.RUNNING,
    } == cancel(conn, [queued, running, ended, uuid7()])
