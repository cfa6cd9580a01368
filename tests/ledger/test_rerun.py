"""rerun: the next run of a key, numbered without gap or double, and never two live runs of one key."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, text

from runclaim.errors import KeyConflict
from runclaim.ledger import read
from runclaim.ledger.enqueue import Enqueued, enqueue
from runclaim.ledger.purge import purge, purge_keys
from runclaim.ledger.rerun import reran, rerun
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.models import run_keys
from runclaim.states import TERMINAL, RunState
from tests.ledger.concurrency import DEADLOCK, Actor, blocked, refusals, together
from tests.ledger.factories import (
    blocked_run,
    claimed_run,
    failed_run,
    finish,
    new_run,
    queued_run,
    succeeded_run,
    waiting_run,
)
from tests.ledger.sql import count

DAY = timedelta(days=1)


def numbers(conn, key="pr-7"):
    """The numbers of a key's runs, and how many of these runs are live."""
    found = conn.execute(
        text("SELECT rerun, finished_at IS NULL FROM runclaim_runs WHERE key = :key ORDER BY rerun"), {"key": key}
    ).all()
    return [number for number, _ in found], sum(live for _, live in found)


def rerun_one(conn, key="pr-7", **what):
    return rerun(conn, [new_run(key, **what)])[0].run_id


def test_a_rerun_is_a_new_run_with_the_keys_next_number_which_the_key_names_from_then_on(conn):
    first = succeeded_run(conn, "pr-7")
    wanted = new_run("pr-7")

    assert [Enqueued(wanted.run_id, created=True)] == rerun(conn, [wanted], by="ann")
    view = read.run(conn, wanted.run_id)
    assert (1, RunState.QUEUED, "pr-7") == (view.rerun, view.state, view.key)
    assert read.run(conn, first).state is RunState.SUCCEEDED
    assert [Enqueued(wanted.run_id, created=False)] == enqueue(conn, [new_run("pr-7")])
    assert {"rerun": 1, "of": first, "by": "ann"} == read.journal(conn, wanted.run_id)[0].data


def test_a_rerun_of_a_key_that_has_no_run_is_its_first(conn):
    run_id = rerun_one(conn)

    assert 0 == read.run(conn, run_id).rerun
    assert ([0], 1) == numbers(conn)


@pytest.mark.parametrize("made", [queued_run, claimed_run, waiting_run, blocked_run])
@pytest.mark.parametrize("subject", [None, "acme"])
def test_a_rerun_supersedes_the_keys_older_run_if_it_is_live(conn, made, subject):
    """
    INVARIANT: one live run a key, with a subject or without one.

    Breaks if a rerun leaves it to the subject's rule alone.
    """
    found = made(conn, "pr-7", subject=subject)
    older = found if isinstance(found, str) else found.run_id
    newer = rerun_one(conn, subject=subject)

    assert read.run(conn, older).state is RunState.SUPERSEDED
    assert {"by_run": newer} == read.journal(conn, older)[-1].data
    assert ([0, 1], 1) == numbers(conn)


def test_a_rerun_with_another_subject_than_the_older_run_had_supersedes_it_too(conn):
    older = queued_run(conn, "pr-7", subject="before the deploy")
    rerun_one(conn, subject="after it")

    assert read.run(conn, older).state is RunState.SUPERSEDED


def test_the_claim_of_a_superseded_older_run_cannot_complete(conn):
    stale = claimed_run(conn, "pr-7")
    rerun_one(conn)

    assert finish(conn, stale) is None


@pytest.mark.parametrize("subject", [None, "acme"])
def test_a_failed_run_whose_key_has_a_newer_run_is_not_retried(conn, subject):
    """
    INVARIANT: one live run a key.

    Breaks if a rerun no longer outdates the older run: a retry would let it live beside the newer one.
    """
    older = failed_run(conn, "pr-7", subject=subject).run_id
    newer = rerun_one(conn, subject=subject)

    assert retry(conn, older) is False
    assert ([0, 1], 1) == numbers(conn)
    assert read.run(conn, newer).state is RunState.QUEUED


def test_a_rerun_can_be_retried_and_resumed_like_any_run(conn):
    queued_run(conn, "pr-7")
    rerun_one(conn)
    failed = failed_run(conn, "pr-8").run_id
    blocked_one = blocked_run(conn, "pr-9").run_id

    assert retry(conn, failed)
    assert resume(conn, blocked_one)


def test_the_rerun_of_a_purged_run_goes_on_counting(conn, clock):
    succeeded_run(conn, "pr-7", keep_key=90 * DAY)
    clock.advance(31 * DAY)
    purge(conn, dict.fromkeys(TERMINAL, 30 * DAY))
    rerun_one(conn)

    assert ([1], 1) == numbers(conn)


def test_a_rerun_moves_the_keys_expiry_on_and_never_back(conn, clock):
    """
    INVARIANT: a key is remembered for its whole time after its newest run was made.

    Breaks if a rerun leaves the expiry alone, or a shorter setting takes time away from an older promise.
    """
    succeeded_run(conn, "pr-7", keep_key=60 * DAY)
    clock.advance(30 * DAY)
    rerun_one(conn, keep_key=60 * DAY)
    moved = expiry(conn)
    rerun_one(conn, keep_key=DAY)

    assert moved == clock.now + 60 * DAY
    assert expiry(conn) == moved


def expiry(conn):
    return conn.execute(select(run_keys.c.expires_at)).scalar_one()


def test_an_expired_key_of_a_purged_run_takes_another_input(conn, clock):
    succeeded_run(conn, "pr-7", keep_key=DAY)
    clock.advance(31 * DAY)
    purge(conn, dict.fromkeys(TERMINAL, 30 * DAY))
    run_id = rerun_one(conn, input={"other": 1})

    assert (0, 0) == (read.run(conn, run_id).rerun, purge_keys(conn))


def test_another_input_under_the_same_key_is_a_conflict_and_counts_nothing(conn):
    """
    INVARIANT: a refused rerun spends no number and takes no key, also of the others in its batch.

    Breaks if what the batch had counted is not given back; the caller may go on with its transaction.
    """
    queued_run(conn, "pr-7")
    queued_run(conn, "pr-8")
    before = conn.execute(select(run_keys).order_by(run_keys.c.key_hash)).all()

    with pytest.raises(KeyConflict) as refused:
        rerun(conn, [new_run("pr-6"), new_run("pr-7"), new_run("pr-8", input={"other": 1})])
    assert {"key": ("pr-8", None), "other": (None, 1)} == refused.value.differs
    after = conn.execute(select(run_keys).order_by(run_keys.c.key_hash)).all()
    assert [(row.run_id, row.rerun) for row in after] == [(row.run_id, row.rerun) for row in before]


def test_a_batch_that_names_a_key_twice_makes_one_rerun_of_it(conn):
    queued_run(conn, "pr-7")
    first, same, other = new_run("pr-7"), new_run("pr-7"), new_run("pr-8")

    assert [
        Enqueued(first.run_id, created=True),
        Enqueued(first.run_id, created=False),
        Enqueued(other.run_id, created=True),
    ] == rerun(conn, [first, same, other])
    assert (([0, 1], 1), ([0], 1)) == (numbers(conn), numbers(conn, "pr-8"))


def test_a_rerun_that_is_repeated_recognises_itself(conn):
    """
    INVARIANT: a rerun whose COMMIT had no answer counts once.

    Breaks if the repetition does not see that the key names its run already.
    """
    queued_run(conn, "pr-7")
    wanted = new_run("pr-7")
    unknown = reran(conn, [wanted])
    first = rerun(conn, [wanted])

    assert unknown is None
    assert rerun(conn, [wanted]) == first == reran(conn, [wanted])
    assert ([0, 1], 1) == numbers(conn)


def test_a_rerun_that_is_read_back_is_known_also_after_the_next_one(conn):
    queued_run(conn, "pr-7")
    wanted = new_run("pr-7")
    made = rerun(conn, [wanted])
    rerun_one(conn)

    assert reran(conn, [wanted]) == made


@pytest.mark.parametrize("subject", [None, "acme"])
def test_32_reruns_at_once_are_numbered_without_gap_or_double_and_one_is_live(database, subject):
    """
    INVARIANT: the numbers of a key follow one another, however many rerun it at once.

    Breaks if the number is read before it is raised.
    """
    database.run(lambda conn: queued_run(conn, "pr-7", subject=subject))

    found = together(32, lambda _: database.run(lambda conn: rerun_one(conn, subject=subject)))

    assert 32 == len(set(found))
    with database.read() as conn:
        assert (list(range(33)), 1) == numbers(conn)
        assert 1 == count(conn, "run_keys")


def test_the_first_runs_of_a_key_that_nobody_has_are_numbered_from_0(database):
    together(16, lambda _: database.run(rerun_one))

    with database.read() as conn:
        assert (list(range(16)), 1) == numbers(conn)


def test_enqueues_retries_and_reruns_of_one_key_at_once_leave_one_run_alive(database):
    failed = [database.run(lambda conn: failed_run(conn, "pr-7")).run_id]

    def work(number):
        if number % 3 == 0:
            return database.run(lambda conn: failed.append(rerun_one(conn)))
        if number % 3 == 1:
            return database.run(lambda conn: retry(conn, failed[0]))
        return database.run(lambda conn: enqueue(conn, [new_run("pr-7")]))

    with refusals(database) as refused:
        together(18, work)

    with database.read() as conn:
        assert (list(range(7)), 1) == numbers(conn)
    assert DEADLOCK not in refused


def test_batches_with_the_same_keys_in_any_order_follow_each_other(database):
    keys = [f"pr-{number}" for number in range(30)]

    def batch(number):
        mine = keys if number % 2 else keys[::-1]
        database.run(lambda conn: rerun(conn, [new_run(key) for key in mine]))

    with refusals(database) as refused:
        together(6, batch)

    with database.read() as conn:
        assert {key: numbers(conn, key) for key in keys} == dict.fromkeys(keys, (list(range(6)), 1))
    assert DEADLOCK not in refused


def test_a_rerun_that_waits_for_another_takes_the_number_after_it_or_its_own_place(postgres):
    """
    INVARIANT: a number is spent when its transaction commits.

    Breaks if numbers come from somewhere that a rollback does not reach, such as a sequence.
    """
    postgres.run(lambda conn: queued_run(conn, "pr-7"))
    with Actor(postgres) as one, Actor(postgres) as other:
        one.do(rerun_one)
        waiting = blocked(postgres, other, rerun_one)
        one.roll_back()
        waiting.result(20)
        other.commit()

    with postgres.read() as conn:
        assert ([0, 1], 1) == numbers(conn)
