"""What a verb does when it has to wait, forced on PostgreSQL: one transaction held open, another seen waiting."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from runclaim.database import Database
from runclaim.errors import LedgerUnavailable
from runclaim.ledger import claim as claims
from runclaim.ledger import read
from runclaim.ledger.actions import settle as outbox
from runclaim.ledger.actions.settle import ActionState, Sent, settle_actions
from runclaim.ledger.cancel import cancel
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import fail
from runclaim.ledger.heartbeat import heartbeat, passed_over
from runclaim.ledger.purge import purge
from runclaim.ledger.release import release
from runclaim.ledger.rescue import rescue
from runclaim.states import TERMINAL, RunState
from tests.ledger.concurrency import PATIENCE, Actor, blocked, refusals, together, until
from tests.ledger.factories import (
    LEASE,
    PHASES,
    canceled_run,
    claim_again,
    claimed_run,
    claimed_runs,
    completion,
    due,
    failure,
    finish,
    new_run,
    queued_run,
    queued_runs,
    take,
    take_all,
    wanted,
)
from tests.ledger.sql import column
from tests.ledger.test_actions import end, pending, plan, send

NOW = timedelta(0)


@pytest.fixture
def first(postgres):
    with Actor(postgres) as actor:
        yield actor


@pytest.fixture
def second(postgres):
    with Actor(postgres) as actor:
        yield actor


def test_an_enqueue_waits_for_the_holder_of_its_key_and_then_finds_its_run(postgres, first, second):
    made = first.do(lambda conn: enqueue(conn, [new_run("pr-7")]))[0]
    waiting = blocked(postgres, second, lambda conn: enqueue(conn, [new_run("pr-7")]))
    first.commit()

    assert waiting.result(PATIENCE)[0].run_id == made.run_id
    assert not waiting.result()[0].created


def test_an_enqueue_whose_holder_rolls_back_makes_the_run(postgres, first, second):
    first.do(lambda conn: enqueue(conn, [new_run("pr-7")]))
    waiting = blocked(postgres, second, lambda conn: enqueue(conn, [new_run("pr-7")]))
    first.roll_back()

    assert waiting.result(PATIENCE)[0].created


def test_a_claim_that_waited_for_a_cancel_finds_nothing_to_take(postgres, first, second):
    """
    INVARIANT: after a wait the guards are compared with the row as it is now.

    Breaks if a guard looks at another table: PostgreSQL re-checks only the locked row.
    """
    run_id = postgres.run(queued_run)
    message = postgres.run(lambda conn: wanted(conn, run_id))
    first.do(lambda conn: cancel(conn, [run_id]))
    waiting = blocked(postgres, second, lambda conn: take(conn, message))
    first.commit()

    assert waiting.result(PATIENCE) is None


def test_a_claim_that_waited_for_a_newer_run_of_its_subject_finds_nothing_to_take(postgres, first, second):
    run_id = postgres.run(lambda conn: queued_run(conn, subject="pr-7"))
    message = postgres.run(lambda conn: wanted(conn, run_id))
    first.do(lambda conn: enqueue(conn, [new_run(subject="pr-7")]))
    waiting = blocked(postgres, second, lambda conn: take(conn, message))
    first.commit()

    assert waiting.result(PATIENCE) is None


def test_a_lease_runs_from_the_moment_the_row_is_written_not_from_the_statement(postgres, first, second):
    """
    INVARIANT: who waited for a row gets a whole lease.

    Breaks if the clock is `now()` or `statement_timestamp()`: the lease would be shorter by the wait.
    """
    run_id = postgres.run(queued_run)
    message = postgres.run(lambda conn: wanted(conn, run_id))
    first.do(lambda conn: lock(conn, run_id))
    waiting = blocked(postgres, second, lambda conn: take(conn, message))
    began = clock_of(postgres)
    until(lambda: clock_of(postgres) > began + timedelta(milliseconds=300), what="time to pass")
    first.commit()
    waiting.result(PATIENCE)
    second.commit()

    with postgres.read() as conn:
        assert column(conn, run_id, "lease_expires_at") >= began + LEASE + timedelta(milliseconds=300)


def clock_of(database):
    with database.read() as conn:
        return conn.execute(text("SELECT clock_timestamp()")).scalar_one()


def test_a_completion_that_waited_for_a_rescue_is_refused(postgres, first, second):
    claim = postgres.run(lambda conn: claimed_run(conn, how={"lease": NOW}))
    first.do(rescue)
    waiting = blocked(postgres, second, lambda conn: finish(conn, claim))
    first.commit()

    assert waiting.result(PATIENCE) is None


def test_a_zombies_late_claim_does_not_take_a_later_attempt(postgres, first, second):
    """
    INVARIANT: a statement that arrives late acts on the run as its sender saw it, or not at all.

    Breaks if claim stops comparing the fence that was seen.
    """
    run_id = postgres.run(queued_run)
    late = postgres.run(lambda conn: wanted(conn, run_id))
    first.do(lambda conn: fail(conn, [failure(claim_again(conn, run_id))]))
    waiting = blocked(postgres, second, lambda conn: take(conn, late))
    first.commit()

    assert waiting.result(PATIENCE) is None


def test_a_set_is_locked_in_the_order_of_its_ids_whatever_its_plan_is(postgres, first, second):
    """
    INVARIANT: the lock order does not hang on the planner.

    Breaks if the runs are only sorted, and not locked before they are written: one statement would take them by
    their ids, the other as they lie in the table, and both would wait for the row that the other has.
    """
    one, other = sorted(postgres.run(lambda conn: claimed_runs(conn, 2)), key=lambda claim: claim.run_id)
    # Its new version lies behind the other run's.
    postgres.run(lambda conn: heartbeat(conn, [(one, LEASE)]))
    first.do(lambda conn: heartbeat(conn, [(other, LEASE)]))
    second.do(lambda conn: conn.exec_driver_sql("SET LOCAL enable_nestloop = off; SET LOCAL enable_indexscan = off"))
    with Actor(postgres) as third:
        completing = blocked(postgres, second, lambda conn: complete(conn, [completion(one), completion(other)]))
        canceling = blocked(postgres, third, lambda conn: cancel(conn, [one.run_id, other.run_id]))
        first.commit()

        assert 2 == len(completing.result(PATIENCE))
        second.commit()
        assert 2 == len(canceling.result(PATIENCE))
        third.commit()


def test_rescuers_and_beats_pass_over_what_others_hold(postgres, first):
    """
    INVARIANT: one process that is stuck in a transaction stops no sweep.

    Breaks if rescue, dispatch or purge waits for locked rows.
    """
    locked = postgres.run(lambda conn: claimed_run(conn, how={"lease": NOW}))
    free = postgres.run(lambda conn: claimed_run(conn, how={"lease": NOW}))
    one, other = postgres.run(lambda conn: queued_runs(conn, 2, dispatch_after=NOW))
    gone, left = postgres.run(canceled_run), postgres.run(canceled_run)
    first.do(lambda conn: lock(conn, locked.run_id, one, left))

    assert [free.run_id] == list(postgres.run(rescue))
    assert {free.run_id, other} == {each.run_id for each in postgres.run(due)}
    assert 1 == postgres.run(lambda conn: purge(conn, dict.fromkeys(TERMINAL, NOW)))
    with postgres.read() as conn:
        assert [left] == list(read.states(conn, [gone, left]))


def lock(conn, *run_ids):
    for run_id in run_ids:
        conn.execute(text("SELECT 1 FROM runclaim_runs WHERE id = :id FOR NO KEY UPDATE"), {"id": run_id})


def test_rows_that_hang_on_a_run_can_be_written_while_somebody_moves_it(postgres, first):
    """
    INVARIANT: moving a run stops no application from referring to it.

    Breaks if a verb locks with FOR UPDATE, or changes a column that is referred to.
    """
    claim = postgres.run(claimed_run)
    first.do(lambda conn: heartbeat(conn, [(claim, LEASE)]))

    with postgres.begin() as conn:
        conn.execute(text("SET LOCAL lock_timeout = '1s'"))
        conn.execute(
            text("INSERT INTO runclaim_events (run_id, type, fence, at) VALUES (:id, 'note', 1, clock_timestamp())"),
            {"id": claim.run_id},
        )


def test_a_verb_that_runs_into_a_lock_timeout_is_repeated(postgres, first):
    claim = postgres.run(claimed_run)
    first.do(lambda conn: heartbeat(conn, [(claim, LEASE)]))
    tried = []

    def impatient(conn):
        tried.append(1)
        if len(tried) == 3:
            first.commit()
        conn.execute(text("SET LOCAL lock_timeout = '20ms'"))
        return cancel(conn, [claim.run_id])

    assert {claim.run_id: RunState.RUNNING} == postgres.run(impatient)
    assert 3 == len(tried)


def test_a_deadlock_is_repeated_and_never_shown(postgres):
    """Two applications' own rows in opposite orders: the database ends one, `Database.run` repeats it."""
    one, other = postgres.run(lambda conn: claimed_runs(conn, 2))
    tried = []

    with Actor(postgres) as first:
        first.do(lambda conn: conn.execute(text("SET deadlock_timeout = '10s'")))
        first.do(lambda conn: lock(conn, one.run_id))

        def crossed(conn):
            tried.append(1)
            conn.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
            if len(tried) == 2:
                circle[0].result(PATIENCE)
                first.commit()
            lock(conn, other.run_id)
            if len(tried) == 1:
                circle.append(first.start(lambda conn: lock(conn, other.run_id)))
                until_blocked(postgres, first)
            lock(conn, one.run_id)
            return "through"

        circle = []

        assert "through" == postgres.run(crossed)
        assert 2 == len(tried)


def until_blocked(database, actor):
    with database.engine.connect() as conn:
        watcher = conn.execution_options(isolation_level="AUTOCOMMIT")
        until(lambda: actor.is_blocked(watcher), what="a lock wait")


def test_two_batches_with_the_same_keys_in_opposite_orders_do_not_wait_in_a_circle(postgres, slow_keys):
    """
    INVARIANT: run keys are locked in sorted order.

    Breaks if they are taken in the order of the batch.
    """
    keys = [f"pr-{number}" for number in range(10)]

    def batch(number):
        runs = [new_run(key) for key in (keys if number else reversed(keys))]
        return postgres.run(lambda conn: enqueue(conn, runs))

    with refusals(postgres) as refused:
        made = together(2, batch)

    assert sum(each.created for batch in made for each in batch) == len(keys)
    assert [] == refused


@pytest.fixture
def slow_keys(postgres):
    """Each key takes a moment, so that two batches are surely under way at the same time."""
    with postgres.begin() as conn:
        conn.exec_driver_sql(
            "CREATE FUNCTION test_wait() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END'"
        )
        conn.exec_driver_sql(
            "CREATE TRIGGER test_wait BEFORE INSERT ON runclaim_run_keys FOR EACH ROW EXECUTE FUNCTION test_wait()"
        )
    yield
    with postgres.begin() as conn:
        conn.exec_driver_sql("DROP FUNCTION test_wait CASCADE")


def test_a_lock_timeout_of_the_callers_own_transaction_is_the_callers_to_handle(postgres, first):
    run_id = postgres.run(queued_run)
    first.do(lambda conn: lock(conn, run_id))

    with postgres.engine.connect() as conn:
        conn.execute(text("SET LOCAL lock_timeout = '10ms'"))
        with pytest.raises(OperationalError):
            cancel(conn, [run_id])


def test_a_beat_passes_over_a_row_that_somebody_holds_and_says_that_its_claim_stands(postgres, first):
    """
    INVARIANT: an open transaction that superseded one run lets no other lease lapse, and its own run is not lost.

    Breaks if a beat waits for a locked row, or takes one that it left out for a lost claim.
    """
    held = postgres.run(lambda conn: claimed_run(conn, subject="pr-7"))
    free, lost = postgres.run(claimed_run), postgres.run(claimed_run)
    postgres.run(lambda conn: release(conn, [lost]))
    first.do(lambda conn: enqueue(conn, [new_run(subject="pr-7")]))
    claims = [held, free, lost]
    beaten = postgres.run(lambda conn: heartbeat(conn, [(claim, LEASE) for claim in claims]))
    standing = postgres.run(lambda conn: passed_over(conn, [held, lost]))

    assert {free.run_id: False} == beaten
    assert {held.run_id: False} == standing


def test_a_beat_that_is_passed_over_hears_of_a_cancellation(postgres, first):
    claim = postgres.run(claimed_run)
    postgres.run(lambda conn: cancel(conn, [claim.run_id]))
    first.do(lambda conn: lock(conn, claim.run_id))

    assert {} == postgres.run(lambda conn: heartbeat(conn, [(claim, LEASE)]))
    assert {claim.run_id: True} == postgres.run(lambda conn: passed_over(conn, [claim]))


def test_a_claim_past_its_deadline_does_not_stand(postgres, first):
    claim = postgres.run(lambda conn: claimed_run(conn, how={"max_duration": NOW}))
    first.do(lambda conn: lock(conn, claim.run_id))

    assert {} == postgres.run(lambda conn: passed_over(conn, [claim]))


def test_a_group_is_claimed_without_the_runs_that_somebody_holds(postgres, first):
    """
    INVARIANT: one locked row holds up no other run of a message.

    Breaks if claim waits for it, or if nobody is told that it can still be claimed.
    """
    held, free = postgres.run(lambda conn: queued_runs(conn, 2))
    done = postgres.run(claimed_run).run_id
    asked = [postgres.run(lambda conn, run_id=run_id: wanted(conn, run_id)) for run_id in (held, free, done)]
    first.do(lambda conn: lock(conn, held))
    taken = postgres.run(lambda conn: take_all(conn, asked, pass_over=True))
    left = postgres.run(lambda conn: claims.passed_over(conn, [asked[0], asked[2]]))
    first.commit()

    assert [free] == [claim.run_id for claim in taken]
    assert {held} == left
    assert postgres.run(lambda conn: take(conn, asked[0], pass_over=True)).run_id == held


def test_a_common_commit_leaves_out_the_run_that_somebody_holds(postgres, first):
    held, free = postgres.run(lambda conn: claimed_runs(conn, 2))
    first.do(lambda conn: lock(conn, held.run_id))
    moved = postgres.run(lambda conn: complete(conn, [completion(held), completion(free)], pass_over=True))
    first.commit()

    assert [free.run_id] == list(moved)
    assert PHASES[1] == postgres.run(lambda conn: finish(conn, held)).claim.phase


def test_claims_are_given_back_without_the_one_that_somebody_holds(postgres, first):
    held, free = postgres.run(lambda conn: claimed_runs(conn, 2))
    first.do(lambda conn: lock(conn, held.run_id))

    assert [free.run_id] == list(postgres.run(lambda conn: release(conn, [held, free], pass_over=True)))


def lock_its_action(conn, run_id):
    conn.execute(text("SELECT 1 FROM runclaim_actions WHERE run_id = :id FOR UPDATE"), {"id": run_id})


@pytest.mark.parametrize("hold", [lock, lock_its_action])
def test_the_ends_of_sends_are_recorded_without_the_one_that_somebody_holds(postgres, first, hold):
    """
    INVARIANT: one locked row keeps no other send from being recorded, and loses none.

    Breaks if a settle waits for a locked row, or if nobody is told that it still can be settled.
    """
    postgres.run(lambda conn: [plan(conn) for _ in range(3)])
    ends = [Sent(claim, ActionState.POSTED, NOW) for claim in postgres.run(lambda conn: send(conn, limit=3))]
    held, free, lost = (each.claim for each in ends)
    first.do(lambda conn: hold(conn, held.run_id))
    postgres.run(lambda conn: end(conn, lost))
    after = postgres.run(lambda conn: settle_actions(conn, ends))
    standing = postgres.run(lambda conn: outbox.passed_over(conn, [ends[0], ends[2]]))
    first.commit()

    assert {free.action_id: ActionState.POSTED} == after
    assert {held.action_id} == standing
    assert {held.action_id: ActionState.POSTED} == postgres.run(lambda conn: settle_actions(conn, ends))
    assert [0, 0] == [postgres.run(lambda conn, run_id=each.run_id: pending(conn, run_id)) for each in (held, free)]


def test_an_enqueue_behind_a_transaction_that_stays_open_ends_when_its_patience_does(postgres, first):
    """
    INVARIANT: a transaction of the application that is open for minutes keeps nobody for longer than their patience.

    Breaks if our sessions have no lock_timeout: the server would go on waiting for what nobody wants any more.
    """
    impatient = Database(postgres.url.render_as_string(hide_password=False), patience=timedelta(seconds=1))
    first.do(lambda conn: enqueue(conn, [new_run(subject="pr-7")]))
    with refusals(impatient) as refused, pytest.raises(LedgerUnavailable):
        impatient.run(lambda conn: enqueue(conn, [new_run(subject="pr-7")]))
    waiting = count_waiting(postgres)
    first.commit()
    impatient.close()

    assert "55P03" in refused
    assert 0 == waiting


def count_waiting(database):
    with database.read() as conn:
        return conn.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one()


def test_a_limit_that_a_role_has_on_waits_for_locks_stays(postgres):
    url = postgres.url.update_query_dict({"options": "-c lock_timeout=20ms"})
    limited = Database(url.render_as_string(hide_password=False), patience=timedelta(seconds=5))
    with limited.read() as conn:
        own = conn.execute(text("SHOW lock_timeout")).scalar_one()
    limited.close()

    assert "20ms" == own


def test_a_session_of_a_pooler_is_given_no_limit_that_it_would_hand_on(postgres):
    url = postgres.url.update_query_dict({"prepare_threshold": "none"})
    pooled = Database(url.render_as_string(hide_password=False), patience=timedelta(seconds=5))
    with pooled.read() as conn, postgres.read() as ours:
        limits = [each.execute(text("SHOW lock_timeout")).scalar_one() for each in (conn, ours)]
    pooled.close()

    assert ["0", "18s"] == limits
