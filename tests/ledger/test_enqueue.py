"""enqueue: one run a key, one live run a subject."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runclaim.errors import KeyConflict
from runclaim.events import EventType
from runclaim.keys import run_key
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.enqueue import Enqueued, enqueue
from runclaim.ledger.run_keys import key_of, recorded_fingerprint
from runclaim.states import PhaseStatus, RunState
from tests.ledger.factories import (
    PHASES,
    blocked_run,
    claim_again,
    claimed_run,
    failed_run,
    finish,
    new_run,
    queued_run,
    succeeded_run,
    take,
    waiting_run,
    wanted,
)
from tests.ledger.sql import column, count


def test_the_recorded_input_of_a_key_is_that_of_its_own_project_and_flow(conn):
    """A rerun of a purged key goes by it. Breaks if the key's hash is looked for without its namespace."""
    places = [("default", "review"), ("other", "review"), ("default", "report")]
    runs = [
        new_run("pr-7", project=project, flow=flow, input={"n": number})
        for number, (project, flow) in enumerate(places)
    ]
    enqueue(conn, runs)

    assert [run.fingerprint for run in runs] == [recorded_fingerprint(conn, *key_of(run)) for run in runs]
    assert None is recorded_fingerprint(conn, "nobody/review", runs[0].key.hash)


def test_a_new_key_makes_a_queued_run_at_its_first_phase(conn, clock):
    run = new_run("pr-7", subject="acme", input={"number": 7}, priority=5)

    assert [Enqueued(run.run_id, created=True)] == enqueue(conn, [run])
    view = read.run(conn, run.run_id)
    assert (
        "review", "pr-7", "acme", RunState.QUEUED, "plan"
    ) == (view.flow, view.key, view.subject, view.state, view.phase)  # fmt: skip
    assert view.phases == dict.fromkeys(PHASES, PhaseStatus.PENDING)
    assert (0, 0, 0, None, None) == (view.attempts, view.losses, view.fence, view.worker, view.error)
    assert {"number": 7} == view.input
    assert (view.enqueued_at, view.started_at, view.finished_at) == (clock.now, None, None)
    assert [EventType.RUN_ENQUEUED] == [event.type for event in read.journal(conn, run.run_id)]


def test_the_same_key_and_input_name_the_first_run(conn):
    first = queued_run(conn, "pr-7")

    assert [Enqueued(first, created=False)] == enqueue(conn, [new_run("pr-7")])
    assert 1 == count(conn, "runs")


def test_the_same_key_and_input_name_a_run_that_has_ended(conn):
    done = succeeded_run(conn, "pr-7")

    assert [Enqueued(done, created=False)] == enqueue(conn, [new_run("pr-7", phases=("plan",))])


def test_many_runs_are_answered_in_the_order_they_were_asked_for(conn):
    known = queued_run(conn, "b")
    asked = [new_run("c"), new_run("b"), new_run("a"), new_run("c")]

    found = enqueue(conn, asked)

    assert [asked[0].run_id, known, asked[2].run_id, asked[0].run_id] == [each.run_id for each in found]
    assert [True, False, True, False] == [each.created for each in found]
    assert 3 == count(conn, "runs")


def test_enqueuing_nothing_makes_nothing(conn):
    assert [] == enqueue(conn, [])
    assert 0 == count(conn, "runs")


def test_a_run_that_is_enqueued_again_recognises_itself(conn):
    """
    INVARIANT: `created` is true for the caller whose transaction made the run, also when its COMMIT's answer was lost.

    Breaks if enqueue tells "inserted now" from the INSERT alone: the retried caller would not publish its own run.
    """
    run = new_run("pr-7")
    enqueue(conn, [run])

    assert [Enqueued(run.run_id, created=True)] == enqueue(conn, [run])
    assert 1 == count(conn, "runs")


def test_another_input_under_the_same_key_is_refused_with_the_fields_that_differ(conn):
    first = queued_run(conn, "pr-7", input={"number": 7, "head": "a1", "base": "m"})

    with pytest.raises(KeyConflict, match="head was 'a1', is 'b2'; draft was None, is True") as refused:
        enqueue(conn, [new_run("pr-7", input={"number": 7, "head": "b2", "base": "m", "draft": True})])
    assert refused.value.run_id == first
    assert {"head": ("a1", "b2"), "draft": (None, True)} == refused.value.differs


def test_the_same_input_is_no_conflict_however_an_earlier_release_made_its_fingerprint(conn):
    """
    INVARIANT: equal inputs are one run, whichever release has recorded the first.

    Breaks if fingerprints alone are compared, and the recorded input is not looked at.
    """
    first = queued_run(conn, "pr-7", input={"number": 7}, fingerprint="0" * 64)

    assert [Enqueued(first, created=False)] == enqueue(conn, [new_run("pr-7", input={"number": 7})])


def test_a_refused_batch_leaves_no_key_behind_for_a_caller_who_goes_on(conn):
    """
    INVARIANT: a key without a run is a run that can never be.

    Breaks if a batch that is refused keeps the keys it took, and its caller catches the refusal and commits.
    """
    queued_run(conn, "b", input={"n": 1})
    with pytest.raises(KeyConflict):
        enqueue(conn, [new_run("a"), new_run("b", input={"n": 2}), new_run("c")])

    assert [1, 1, 1] == [count(conn, table) for table in ("run_keys", "runs", "events")]
    assert [True, True] == [each.created for each in enqueue(conn, [new_run("a"), new_run("c")])]


def test_two_inputs_under_one_key_in_one_batch_are_refused(conn):
    with pytest.raises(KeyConflict) as refused:
        enqueue(conn, [new_run("pr-7", input={"n": 1}), new_run("pr-7", input={"n": 2})])
    assert {"n": (1, 2)} == refused.value.differs
    assert 0 == count(conn, "runs")


def test_another_input_than_a_purged_run_had_is_refused_without_fields(conn):
    purged = succeeded_run(conn, "pr-7", input={"n": 1})
    conn.exec_driver_sql("DELETE FROM runclaim_runs")

    with pytest.raises(KeyConflict, match="its input was purged") as refused:
        enqueue(conn, [new_run("pr-7", input={"n": 2})])
    assert (refused.value.run_id, refused.value.differs) == (purged, {})


def test_the_same_key_in_another_flow_or_project_is_another_run(conn):
    found = enqueue(conn, [new_run("pr-7"), new_run("pr-7", flow="deploy"), new_run("pr-7", project="second")])

    assert [True, True, True] == [each.created for each in found]


def test_keys_that_read_the_same_but_have_other_parts_are_two_runs(conn):
    found = enqueue(conn, [new_run(run_key(["a", "b:c"])), new_run(run_key(["a:b", "c"]))])

    assert [True, True] == [each.created for each in found]


def test_a_key_is_free_again_once_it_has_expired_and_its_run_is_purged(conn, clock):
    queued_run(conn, "pr-7", keep_key=timedelta(days=1), input={"n": 1})
    conn.exec_driver_sql("DELETE FROM runclaim_runs")
    clock.advance(timedelta(days=1))
    fresh = new_run("pr-7", input={"n": 2})

    assert [Enqueued(fresh.run_id, created=True)] == enqueue(conn, [fresh])


def test_a_tombstone_refuses_to_run_purged_work_again_until_it_expires(conn, clock):
    """
    INVARIANT: a late duplicate of a purged run starts nothing.

    Breaks if the key goes with its run, or if a tombstone is looked for before the insert.
    """
    purged = queued_run(conn, "pr-7", keep_key=timedelta(days=1))
    conn.exec_driver_sql("DELETE FROM runclaim_runs")
    clock.advance(timedelta(hours=23))

    assert [Enqueued(purged, created=False)] == enqueue(conn, [new_run("pr-7")])
    assert 0 == count(conn, "runs")


def test_an_expired_key_stands_as_long_as_its_run(conn, clock):
    first = queued_run(conn, "pr-7", keep_key=timedelta(days=1))
    clock.advance(timedelta(days=400))

    assert [Enqueued(first, created=False)] == enqueue(conn, [new_run("pr-7")])


def test_a_delayed_run_is_claimable_and_due_only_after_its_delay(conn, clock):
    run_id = queued_run(conn, delay=timedelta(minutes=5))
    early = take(conn, wanted(conn, run_id))
    clock.advance(timedelta(minutes=5))
    in_time = take(conn, wanted(conn, run_id))

    assert early is None
    assert in_time is not None


def test_a_run_is_due_for_the_ledger_when_its_publisher_has_had_its_time(conn, clock):
    run_id = queued_run(conn, dispatch_after=timedelta(seconds=30))
    delayed = queued_run(conn, delay=timedelta(minutes=5), dispatch_after=timedelta(seconds=30))

    assert column(conn, run_id, "dispatch_due_at") == clock.now + timedelta(seconds=30)
    assert column(conn, delayed, "dispatch_due_at") == clock.now + timedelta(minutes=5)


@pytest.mark.parametrize("older", [queued_run, claimed_run, waiting_run, blocked_run])
def test_a_newer_run_of_a_subject_supersedes_every_live_one(conn, older):
    found = older(conn, subject="pr-7")
    older_id = found if isinstance(found, str) else found.run_id
    newer = queued_run(conn, subject="pr-7")

    assert {older_id: RunState.SUPERSEDED, newer: RunState.QUEUED} == read.states(conn, [older_id, newer])
    assert EventType.RUN_SUPERSEDED == read.journal(conn, older_id)[-1].type
    assert read.run(conn, older_id).finished_at is not None


def test_a_worker_whose_run_is_superseded_cannot_complete_it(conn):
    """
    INVARIANT: a newer run of a subject ends the older one also while it runs.

    Breaks if supersede leaves running rows alone or keeps their owner.
    """
    stale = claimed_run(conn, subject="pr-7")
    queued_run(conn, subject="pr-7")

    assert finish(conn, stale) is None
    assert 0 == count(conn, "phase_results")


@pytest.mark.parametrize("ended", [succeeded_run, failed_run])
def test_a_newer_run_of_a_subject_leaves_ended_ones_as_they_are(conn, ended):
    found = ended(conn, subject="pr-7")
    ended_id = found if isinstance(found, str) else found.run_id
    before = read.states(conn, [ended_id])
    queued_run(conn, subject="pr-7")

    assert read.states(conn, [ended_id]) == before


def test_an_existing_run_named_again_supersedes_nothing(conn):
    older = queued_run(conn, "pr-7:a", subject="pr-7")
    newer = queued_run(conn, "pr-7:b", subject="pr-7")
    queued_run(conn, "pr-7:a", subject="pr-7")

    assert {older: RunState.SUPERSEDED, newer: RunState.QUEUED} == read.states(conn, [older, newer])


def test_subjects_of_other_flows_and_projects_do_not_meet(conn):
    first = queued_run(conn, subject="pr-7")
    enqueue(conn, [new_run(subject="pr-7", flow="deploy"), new_run(subject="pr-7", project="second")])

    assert {first: RunState.QUEUED} == read.states(conn, [first])


def test_runs_without_a_subject_supersede_nothing(conn):
    enqueue(conn, [new_run() for _ in range(3)])

    assert {("review", RunState.QUEUED): 3} == read.counts(conn)


def test_of_one_batch_only_the_last_run_of_a_subject_lives(conn):
    batch = [new_run(subject="pr-7"), new_run(subject="pr-8"), new_run(subject="pr-7"), new_run()]
    enqueue(conn, batch)

    assert {
        batch[0].run_id: RunState.SUPERSEDED,
        batch[1].run_id: RunState.QUEUED,
        batch[2].run_id: RunState.QUEUED,
        batch[3].run_id: RunState.QUEUED,
    } == read.states(conn, [each.run_id for each in batch])
    assert [1, 1, 2, 0] == [column(conn, each.run_id, "generation") for each in batch]


def test_a_canceled_run_keeps_its_key(conn):
    run_id = queued_run(conn, "pr-7")
    cancel(conn, [run_id])

    assert [Enqueued(run_id, created=False)] == enqueue(conn, [new_run("pr-7")])


def test_a_run_is_made_or_not_with_the_callers_own_rows(database):
    """
    INVARIANT: an enqueue in the application's transaction commits with its rows or leaves nothing, the key included.

    Breaks if a verb commits, or works on a connection of its own.
    """
    with database.engine.connect() as conn, conn.begin() as transaction:
        enqueue(conn, [new_run("pr-7")])
        transaction.rollback()
    with database.read() as conn:
        left = {table: count(conn, table) for table in ("runs", "run_keys", "subjects", "events")}
    with database.begin() as conn:
        made = enqueue(conn, [new_run("pr-7")])

    assert {"runs": 0, "run_keys": 0, "subjects": 0, "events": 0} == left
    assert made[0].created


def test_a_run_can_be_claimed_in_the_transaction_that_made_it(conn):
    assert 1 == claim_again(conn, queued_run(conn)).attempt
