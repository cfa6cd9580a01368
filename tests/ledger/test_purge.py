"""purge: finished history goes, keys by their own expiry."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.history.unused_subjects import Subject, subjects_after
from runclaim.ledger.listeners import tail
from runclaim.ledger.listeners.untold import Aside, set_aside
from runclaim.ledger.purge import LONGEST_WAIT, purge, purge_keys
from runclaim.ledger.retry import retry
from runclaim.models import subjects
from runclaim.states import TERMINAL, RunState
from tests.ledger.concurrency import Actor
from tests.ledger.factories import (
    blocked_run,
    canceled_run,
    claim_again,
    claimed_run,
    failed_run,
    finish,
    new_run,
    queued_run,
    succeeded_run,
    superseded_run,
    take,
    waiting_run,
    wanted,
)
from tests.ledger.sql import count

DAY = timedelta(days=1)
KEEP = dict.fromkeys(TERMINAL, 30 * DAY)


@pytest.mark.parametrize(
    "made, state",
    [
        (succeeded_run, RunState.SUCCEEDED),
        (failed_run, RunState.FAILED),
        (canceled_run, RunState.CANCELED),
        (superseded_run, RunState.SUPERSEDED),
    ],
)
def test_each_state_is_kept_as_long_as_its_retention_says(conn, clock, made, state):
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    keep = dict.fromkeys(TERMINAL, 90 * DAY) | {state: 7 * DAY}
    clock.advance(6 * DAY)
    early = purge(conn, keep)
    clock.advance(DAY)

    assert 0 == early
    assert 1 == purge(conn, keep)
    assert read.run(conn, run_id) is None


def test_a_short_retention_of_one_state_shortens_no_other(conn, clock):
    """
    INVARIANT: a failed run is kept for the person who has to look at it.

    Breaks if purge compares with the shortest retention only, which bounds its scan.
    """
    kept, gone = failed_run(conn).run_id, succeeded_run(conn)
    clock.advance(10 * DAY)

    assert 1 == purge(conn, {RunState.SUCCEEDED: 7 * DAY, RunState.FAILED: 90 * DAY})
    assert [kept] == list(read.states(conn, [kept, gone]))


def test_a_state_whose_retention_is_not_given_is_kept(conn, clock):
    failed_run(conn)
    clock.advance(400 * DAY)

    assert 0 == purge(conn, {RunState.SUCCEEDED: DAY})


def test_a_flow_keeps_its_runs_as_long_as_it_says_and_others_theirs(conn, clock):
    """
    INVARIANT: each flow's own retention decides, shorter or longer than the others'.

    Breaks if the rows for all other flows also match a flow that is named.
    """
    short, long, strange = (
        enqueue(conn, [new_run(phases=("plan",), flow=flow)])[0].run_id for flow in ("short", "long", "strange")
    )
    for run_id, flow in ((short, "short"), (long, "long"), (strange, "strange")):
        finish(conn, claim_again(conn, run_id, flow=flow))
    flows = {"short": {RunState.SUCCEEDED: DAY}, "long": {RunState.SUCCEEDED: 90 * DAY}}
    gone = []
    for _ in range(91):
        purge(conn, KEEP, flows=flows)
        gone.append({short, long, strange} - set(read.states(conn, [short, long, strange])))
        clock.advance(DAY)

    assert [
        set(), {short}, {short}, {short, strange}, {short, strange}, {short, strange, long},
    ] == [gone[day] for day in (0, 1, 29, 30, 89, 90)]  # fmt: skip


def test_a_state_that_a_named_flow_leaves_out_is_kept(conn, clock):
    succeeded_run(conn)
    clock.advance(400 * DAY)

    assert 0 == purge(conn, KEEP, flows={"review": {RunState.FAILED: DAY}})


@pytest.mark.parametrize("made", [queued_run, claimed_run, waiting_run, blocked_run])
def test_a_live_run_is_never_purged(conn, clock, made):
    made(conn)
    clock.advance(4000 * DAY)

    assert 0 == purge(conn, KEEP)


def test_a_run_with_a_pending_action_stays(conn, clock):
    """
    INVARIANT: what still has to reach the outside world is not deleted.

    Breaks if purge stops looking at the pending actions.
    """
    succeeded_run(conn)
    conn.exec_driver_sql("UPDATE runclaim_runs SET pending_actions = 1")
    clock.advance(4000 * DAY)

    assert 0 == purge(conn, KEEP)


def test_a_runs_results_and_events_go_with_it_and_its_key_stays(conn, clock):
    """
    INVARIANT: the key outlives the run: a late duplicate starts nothing.

    Breaks if the key goes with the run.
    """
    purged = succeeded_run(conn, "pr-7", keep_key=365 * DAY, subject="acme")
    clock.advance(31 * DAY)
    purge(conn, KEEP)

    expected = {"runs": 0, "phase_results": 0, "events": 0, "run_keys": 1, "subjects": 0}
    assert expected == {table: count(conn, table) for table in expected}
    assert enqueue(conn, [new_run("pr-7", phases=("plan",))])[0].run_id == purged


def test_a_subject_ends_with_the_last_run_that_is_left_of_it(conn, clock):
    failed_run(conn, subject="acme")
    succeeded_run(conn, subject="acme")
    succeeded_run(conn, subject="other", project="elsewhere")
    left = []
    for days in (8, 90):
        clock.advance(days * DAY)
        purge(conn, {RunState.SUCCEEDED: 7 * DAY, RunState.FAILED: 90 * DAY})
        left.append(conn.execute(select(subjects.c.subject, subjects.c.generation)).all())

    assert [[("acme", 2)], []] == left


def test_an_old_failed_run_is_not_retried_beside_a_newer_one_after_a_purge(conn, clock):
    """
    INVARIANT: a generation never goes back while a run of its subject is there.

    Breaks if the row goes with the newest run: the next run would have the generation of the failed one.
    """
    old = failed_run(conn, subject="acme").run_id
    succeeded_run(conn, subject="acme")
    clock.advance(8 * DAY)
    purge(conn, {RunState.SUCCEEDED: 7 * DAY})
    newer = queued_run(conn, subject="acme")

    assert not retry(conn, old)
    assert RunState.QUEUED is read.states(conn, [newer])[newer]


def test_a_late_message_of_a_purged_run_does_not_touch_the_next_run_of_its_subject(conn, clock):
    run_id = queued_run(conn, subject="acme")
    late = wanted(conn, run_id)
    cancel(conn, [run_id])
    clock.advance(31 * DAY)
    purge(conn, KEEP)
    following = queued_run(conn, subject="acme")

    assert take(conn, late) is None
    assert following == claim_again(conn, following).run_id


def test_a_subject_that_somebody_counts_at_this_moment_is_left_and_found_without_a_run_later(postgres):
    """
    INVARIANT: a purge waits for nobody.

    Breaks if it waits for a subject's row while it holds the rows of runs.
    """
    postgres.run(lambda conn: canceled_run(conn, subject="acme"))
    with Actor(postgres) as first:
        first.do(lambda conn: queued_run(conn, subject="acme"))
        purged = postgres.run(lambda conn: purge(conn, KEEP_NOTHING))
        first.roll_back()

    assert 1 == purged
    assert {Subject("default", "review", "acme"): False} == postgres.ask(
        lambda conn: subjects_after(conn, None, limit=9)
    )


def test_subjects_are_walked_through_in_their_order_page_by_page(conn):
    for subject in ("c", "a", "b"):
        queued_run(conn, subject=subject)
    pages, last = [], None
    while page := subjects_after(conn, last, limit=2):
        pages.append(["".join(each.subject) for each in page])
        *_, last = page

    assert [["a", "b"], ["c"]] == pages


def test_one_call_purges_at_most_its_limit_the_oldest_first(conn, clock):
    for _ in range(3):
        canceled_run(conn)
    clock.advance(DAY)
    new = [canceled_run(conn) for _ in range(2)]
    clock.advance(40 * DAY)

    assert 3 == purge(conn, KEEP, limit=3)
    assert set(read.states(conn, new)) == set(new)
    assert 2 == purge(conn, KEEP, limit=3)
    assert 0 == purge(conn, KEEP, limit=3)


def test_purging_with_no_retention_purges_nothing(conn):
    succeeded_run(conn)

    assert 0 == purge(conn, {})


def test_a_key_goes_when_it_has_expired_and_its_run_is_gone(conn, clock):
    succeeded_run(conn, keep_key=60 * DAY)
    clock.advance(59 * DAY)
    purge(conn, KEEP)
    early = purge_keys(conn)
    clock.advance(DAY)

    assert 0 == early
    assert 1 == purge_keys(conn)
    assert 0 == count(conn, "run_keys")


def test_an_expired_key_stays_while_its_run_stands(conn, clock):
    queued_run(conn, keep_key=DAY)
    clock.advance(400 * DAY)

    assert 0 == purge_keys(conn)


def test_one_call_purges_at_most_its_limit_of_keys(conn, clock):
    for _ in range(5):
        canceled_run(conn, keep_key=DAY)
    clock.advance(31 * DAY)
    purge(conn, KEEP)

    assert [2, 2, 1, 0] == [purge_keys(conn, limit=2) for _ in range(4)]


def test_a_run_waits_for_the_listeners_that_have_not_had_its_events(conn, clock):
    """
    INVARIANT: no event is skipped because its run was purged first, as long as its listener comes within a week.

    Breaks if purge looks at the retention alone.
    """
    told, untold = succeeded_run(conn), succeeded_run(conn)
    heard = read.journal(conn, told)[-1].id
    clock.advance(LONGEST_WAIT - timedelta(seconds=1))

    assert 1 == purge(conn, KEEP_NOTHING, heard=heard)
    assert [untold] == list(read.states(conn, [told, untold]))
    clock.advance(timedelta(seconds=1))
    assert 1 == purge(conn, KEEP_NOTHING, heard=heard)


def test_a_run_waits_while_an_event_of_it_is_to_be_told_again(conn, clock):
    run_id = succeeded_run(conn)
    last = tail.after(conn, 0, 2**60, limit=100)[-1]
    set_aside(conn, "mailer", [Aside(last, 1, timedelta(0), None)])

    assert 0 == purge(conn, KEEP_NOTHING, heard=last.id)
    set_aside(conn, "mailer", [Aside(last, 9, timedelta(0), None, given_up=True)])
    assert 1 == purge(conn, KEEP_NOTHING, heard=last.id)
    assert read.run(conn, run_id) is None


KEEP_NOTHING = dict.fromkeys(TERMINAL, timedelta(0))
