"""retry and resume: a person sends a failed or blocked run on, with fresh budgets."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runclaim.events import EventType
from runclaim.keys import uuid7
from runclaim.ledger import read
from runclaim.ledger.claim import ClaimRequest
from runclaim.ledger.fail import Verdict, fail
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.states import RunState
from tests.ledger.factories import (
    blocked_run,
    canceled_run,
    claim_again,
    claimed_run,
    due,
    failed_run,
    failure,
    finish,
    queued_run,
    succeeded_run,
    superseded_run,
    take,
    waiting_run,
)
from tests.ledger.sql import row

WAYS = pytest.mark.parametrize(
    "again, made, event",
    [(retry, failed_run, EventType.RUN_RETRIED), (resume, blocked_run, EventType.RUN_RESUMED)],
    ids=["retry", "resume"],
)


@WAYS
def test_the_run_goes_on_from_the_same_phase_with_fresh_budgets(conn, clock, again, made, event):
    ended = made(conn)
    clock.advance(timedelta(hours=1))

    assert again(conn, ended.run_id, by="ann")
    found = row(conn, ended.run_id)
    assert (found["state"], found["phase"], found["fence"]) == ("queued", "plan", ended.fence + 2)
    assert (0, 0, 0, None) == (found["attempts"], found["losses"], found["dispatches"], found["error"])
    assert (found["available_at"], found["dispatch_due_at"], found["finished_at"]) == (clock.now, clock.now, None)
    last = read.journal(conn, ended.run_id)[-1]
    assert (last.type, last.phase, last.data) == (event, "plan", {"by": "ann"})


@WAYS
def test_completed_phases_are_not_repeated(conn, again, made, event):
    second = finish(conn, claimed_run(conn)).claim
    fail(conn, [failure(second, Verdict.FAIL if again is retry else Verdict.BLOCK)])
    again(conn, second.run_id)

    assert "deliver" == claim_again(conn, second.run_id).phase


@WAYS
def test_it_happens_once_however_often_it_is_asked(conn, again, made, event):
    run_id = made(conn).run_id

    assert [True, False] == [again(conn, run_id), again(conn, run_id)]


@WAYS
def test_the_run_is_due_at_once(conn, again, made, event):
    run_id = made(conn).run_id
    again(conn, run_id)

    assert [run_id] == [each.run_id for each in due(conn)]


@pytest.mark.parametrize(
    "made",
    [queued_run, claimed_run, waiting_run, blocked_run, succeeded_run, canceled_run, superseded_run],
)
def test_only_a_failed_run_is_retried(conn, made):
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    before = row(conn, run_id)

    assert not retry(conn, run_id)
    assert row(conn, run_id) == before


@pytest.mark.parametrize(
    "made",
    [queued_run, claimed_run, waiting_run, failed_run, succeeded_run, canceled_run, superseded_run],
)
def test_only_a_blocked_run_is_resumed(conn, made):
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    before = row(conn, run_id)

    assert not resume(conn, run_id)
    assert row(conn, run_id) == before


def test_a_run_that_does_not_exist_is_neither_retried_nor_resumed(conn):
    assert not retry(conn, uuid7())
    assert not resume(conn, uuid7())


def test_a_failed_run_whose_subject_has_moved_on_is_not_retried(conn):
    """
    INVARIANT: at most one live run a subject.

    Breaks if retry ignores the subject's generation: the old run would live beside the newer one.
    """
    older = failed_run(conn, subject="pr-7").run_id
    newer = queued_run(conn, subject="pr-7")

    assert not retry(conn, older)
    assert {older: RunState.FAILED, newer: RunState.QUEUED} == read.states(conn, [older, newer])


def test_a_failed_run_whose_newer_run_has_ended_is_not_retried_either(conn):
    older = failed_run(conn, subject="pr-7").run_id
    succeeded_run(conn, subject="pr-7")

    assert not retry(conn, older)


def test_a_failed_run_that_is_its_subjects_newest_is_retried(conn):
    older = queued_run(conn, subject="pr-7")
    newest = failed_run(conn, subject="pr-7").run_id

    assert retry(conn, newest)
    assert {older: RunState.SUPERSEDED, newest: RunState.QUEUED} == read.states(conn, [older, newest])


def test_a_message_from_before_the_retry_claims_nothing(conn):
    ended = failed_run(conn)
    retry(conn, ended.run_id)

    assert take(conn, ClaimRequest(ended.run_id, 0, "late")) is None
    assert finish(conn, ended) is None
