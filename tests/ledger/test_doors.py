"""outside_workers, follow, idempotency_keys, page_key: what the doors ask of the ledger beside the workers' verbs."""

from __future__ import annotations

from datetime import timedelta

from runclaim.keys import nonce
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.doors import idempotency_keys as answers
from runclaim.ledger.doors.follow import journal_after
from runclaim.ledger.doors.idempotency_keys import KeptAnswer
from runclaim.ledger.doors.outside_workers import Ready, held_claim, lease_of, ready, recorded_by
from runclaim.ledger.doors.page_key import page_key
from runclaim.ledger.fail import fail
from tests.ledger.concurrency import together
from tests.ledger.factories import LEASE, MAX_DURATION, WORKER, claimed_run, failure, finish, queued_run

PLACE = {"project": "default", "flow": "review", "phases": ["plan"]}
ANSWER = KeptAnswer("print", "00000000-0000-7000-8000-000000000001", 201, {"ETag": '"0"'}, '{"b":1,"a":2}')


def test_the_run_that_has_waited_longest_is_ready_first(conn, clock):
    first = queued_run(conn)
    clock.advance(timedelta(seconds=1))
    queued_run(conn)

    assert Ready(first, 0, "plan") == ready(conn, **PLACE)


def test_only_what_could_be_claimed_now_is_ready(conn, clock):
    delayed = queued_run(conn, delay=timedelta(minutes=1))
    claimed_run(conn)
    cancel(conn, [queued_run(conn)])
    queued_run(conn, flow="deploy"), queued_run(conn, project="theirs")
    before = ready(conn, **PLACE)
    clock.advance(timedelta(minutes=1))

    assert before is None
    assert delayed == ready(conn, **PLACE).run_id
    assert ready(conn, **PLACE | {"phases": ["deliver"]}) is None
    assert ready(conn, **PLACE | {"phases": []}) is None


def test_a_claim_is_held_by_its_fence_and_its_owner(conn, claimed_run):
    held = held_claim(conn, claimed_run.run_id, fence=claimed_run.fence, owner=claimed_run.owner)

    assert claimed_run == held
    assert held_claim(conn, claimed_run.run_id, fence=claimed_run.fence, owner=nonce()) is None
    assert held_claim(conn, claimed_run.run_id, fence=claimed_run.fence + 1, owner=claimed_run.owner) is None
    assert held_claim(conn, queued_run(conn), fence=0, owner="") is None


def test_a_lease_is_told_while_the_run_is_running(conn, clock, claimed_run):
    found = lease_of(conn, claimed_run.run_id)
    finish(conn, claimed_run, inline=False)

    assert (clock.now + LEASE, clock.now + MAX_DURATION, WORKER, clock.now) == (
        found.expires_at, found.deadline_at, found.worker, found.now
    )  # fmt: skip
    assert lease_of(conn, claimed_run.run_id) is None


def test_what_a_claim_has_completed_is_found_by_that_claim_only(conn, claimed_run):
    proof = {"fence": claimed_run.fence, "owner": claimed_run.owner}
    before = recorded_by(conn, claimed_run.run_id, **proof)
    finish(conn, claimed_run)
    found = recorded_by(conn, claimed_run.run_id, **proof)

    assert before is None
    assert ("plan", "done", 1) == (found.phase, found.result, found.attempt)
    assert recorded_by(conn, claimed_run.run_id, **proof | {"owner": nonce()}) is None
    assert recorded_by(conn, claimed_run.run_id, **proof | {"fence": 9}) is None


def test_a_journal_can_be_read_from_any_event_on(conn, claimed_run):
    fail(conn, [failure(claimed_run)])
    whole = read.journal(conn, claimed_run.run_id)

    assert whole == journal_after(conn, claimed_run.run_id, after=0)
    assert whole[2:] == journal_after(conn, claimed_run.run_id, after=whole[1].id)
    assert whole[:2] == journal_after(conn, claimed_run.run_id, after=0, limit=2)


def test_an_answer_is_kept_as_it_was_given_and_the_first_one_stays(conn):
    assert answers.keep(conn, "k" * 64, ANSWER)
    assert not answers.keep(conn, "k" * 64, KeptAnswer("other", ANSWER.run_id, 200, {}, "{}"))
    assert ANSWER == answers.find(conn, "k" * 64)
    assert answers.find(conn, "x" * 64) is None


def test_two_transactions_do_not_work_on_one_key(postgres):
    with postgres.begin() as one, postgres.begin() as other:
        begun = answers.begin(one, "a" * 64), answers.begin(other, "a" * 64), answers.begin(other, "b" * 64)
    with postgres.begin() as later:
        assert answers.begin(later, "a" * 64)
    assert (True, False, True) == begun


def test_an_answer_without_a_run_goes_after_a_day_and_one_of_a_live_run_stays(conn, clock):
    live = queued_run(conn)
    answers.keep(conn, "gone", ANSWER)
    answers.keep(conn, "live", KeptAnswer("print", live, 201, {}, "{}"))
    clock.advance(timedelta(hours=23))
    early = answers.forget_answers(conn)
    clock.advance(timedelta(hours=1))
    late = answers.forget_answers(conn)

    assert (0, 2) == (early, late)
    assert answers.find(conn, "gone") is None
    assert answers.find(conn, "live") is not None
    assert 0 == answers.forget_answers(conn)


def test_a_ledger_has_one_signing_key_whoever_asks_first(database):
    found = together(8, lambda _: database.run(page_key))

    assert 1 == len(set(found))
    assert 32 == len(found[0])
