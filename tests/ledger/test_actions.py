"""Actions in the ledger: planned once, claimed once, settled by who holds them, dropped with a superseded run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from runclaim.keys import nonce, uuid7
from runclaim.ledger.actions.claim import claim_actions, claimed_actions
from runclaim.ledger.actions.decide import action, actions_of, list_actions, resolve_action, retry_action
from runclaim.ledger.actions.plan import NewAction
from runclaim.ledger.actions.settle import ActionState, Sent, settle_actions, settled_actions
from runclaim.ledger.body.findings import NewFinding, findings_of
from runclaim.ledger.cancel import cancel
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import Verdict, fail
from runclaim.ledger.purge import purge
from runclaim.ledger.rescue import rescue
from runclaim.ledger.resume import resume
from runclaim.models import runs
from runclaim.states import RunState
from tests.ledger.concurrency import together
from tests.ledger.factories import claim_again, claimed_run, completion, failure, new_run, queued_run

LONGEST = timedelta(seconds=60)
SECOND = timedelta(seconds=1)


def new_action(claim, name="0", *, kind="comment", **what):
    fields = {"payload": '{"body":"hello"}'} | what
    return NewAction(uuid7(), claim.run_id, claim.phase, name, kind, **fields)


def plan(conn, *, many=1, **what):
    """A run whose first phase is complete and has planned so many actions; the claim of its second phase."""
    taken = claimed_run(conn, **what)
    actions = tuple(new_action(taken, str(number)) for number in range(many))
    moved = complete(conn, [completion(taken, actions=actions)])
    return moved[taken.run_id].claim


def send(conn, *, owner=None, kinds=("comment",), limit=1):
    return claim_actions(conn, dict.fromkeys(kinds, LONGEST), owner=owner or nonce(), limit=limit)


def end(conn, claim, state=ActionState.POSTED, **how):
    return settle_actions(conn, [Sent(claim, state, **{"delay": timedelta(0)} | how)])


def pending(conn, run_id):
    return conn.execute(select(runs.c.pending_actions).where(runs.c.id == run_id)).scalar_one()


def states(conn, run_id):
    return [each.state for each in actions_of(conn, run_id)]


def test_an_action_exists_once_its_phase_is_complete(conn):
    """
    INVARIANT: an action exists if and only if its phase completed.

    Breaks if actions are written before the CAS, or although it matched nothing.
    """
    stale = claimed_run(conn)
    fail(conn, [failure(stale)])
    fresh = claim_again(conn, stale.run_id)
    assert {} == complete(conn, [completion(stale, actions=(new_action(stale),))])
    assert ([], 0) == (actions_of(conn, stale.run_id), pending(conn, stale.run_id))

    complete(conn, [completion(fresh, actions=(new_action(fresh), new_action(fresh, "1")))])

    found = actions_of(conn, fresh.run_id)
    assert [f"{fresh.run_id}:plan:0", f"{fresh.run_id}:plan:1"] == [each.idempotency_key for each in found]
    assert {"planned"} == {each.state for each in found}
    assert 2 == pending(conn, fresh.run_id)


def test_an_action_points_at_a_finding_that_exists(database):
    taken = database.run(claimed_run)
    nowhere = completion(taken, actions=(new_action(taken, finding_id=uuid7()),))

    with pytest.raises(IntegrityError):
        database.run(lambda conn: complete(conn, [nowhere]))


def test_an_action_goes_with_its_run_and_outlives_its_finding(conn):
    taken = claimed_run(conn, phases=("plan",))
    finding = NewFinding(uuid7(), taken.run_id, "plan", None, "major", "title", None, "a.py", 3)
    action = new_action(taken, finding_id=finding.id)
    complete(conn, [completion(taken, findings=(finding,), actions=(action,))])
    assert [finding.id] == [each.id for each in findings_of(conn, taken.run_id)]
    conn.exec_driver_sql("DELETE FROM runclaim_findings")
    assert [None] == [each.finding_id for each in actions_of(conn, taken.run_id)]

    conn.execute(runs.delete())

    assert [] == actions_of(conn, taken.run_id)


def test_an_action_is_claimed_by_one_sender(conn, clock):
    following = plan(conn)
    (taken,) = send(conn)

    assert [] == send(conn)
    assert (1, False, {"body": "hello"}) == (taken.attempt, taken.uncertain, taken.payload)
    assert f"{following.run_id}:plan:0" == taken.idempotency_key
    assert [taken] == claimed_actions(conn, owner=taken.owner)


def test_an_action_of_a_kind_that_nobody_here_knows_is_left_alone(conn):
    plan(conn)

    assert [] == send(conn, kinds=("mail",))


def test_senders_at_once_take_one_action_each(database):
    database.run(lambda conn: plan(conn, many=8))

    found = together(8, lambda _: database.run(send))

    assert len({claim.action_id for (claim,) in filter(None, found)}) == sum(map(len, found))
    rest = database.run(lambda conn: send(conn, limit=8))
    assert 8 == sum(map(len, found)) + len(rest)


def test_a_sender_that_says_nothing_leaves_its_doubt_to_the_next(conn, clock):
    """
    INVARIANT: what may have arrived is known to be uncertain.

    Breaks if the claim forgets that it found an open one: the call would be made twice, blindly.
    """
    plan(conn)
    (stale,) = send(conn)
    clock.advance(LONGEST - SECOND)
    assert [] == send(conn)
    clock.advance(SECOND)

    (fresh,) = send(conn)

    assert (False, True, 2) == (stale.uncertain, fresh.uncertain, fresh.attempt)
    assert fresh.idempotency_key == stale.idempotency_key


@pytest.mark.parametrize("later", ["one", "two"])
def test_a_stale_sender_settles_nothing(conn, clock, later):
    """
    INVARIANT: only the newest claim of an action decides how it ended.

    Breaks if `holds` stops comparing the fence or the owner.
    """
    following = plan(conn)
    (stale,) = send(conn, owner="one")
    clock.advance(LONGEST)
    (fresh,) = send(conn, owner=later)

    assert {} == end(conn, stale, ActionState.FAILED)
    assert {} == settled_actions(conn, [Sent(stale, ActionState.FAILED, timedelta(0))])
    assert {fresh.action_id: ActionState.POSTED} == end(conn, fresh, upstream_id="41")
    assert {fresh.action_id: ActionState.POSTED} == settled_actions(
        conn, [Sent(fresh, ActionState.POSTED, timedelta(0))]
    )
    (found,) = actions_of(conn, following.run_id)
    assert ("posted", "41", 2) == (found.state, found.upstream_id, found.attempts)


def test_two_claims_that_a_failover_gave_one_fence_are_told_apart_by_their_owner(conn):
    plan(conn)
    (taken,) = send(conn, owner="one")
    twin = type(taken)(**{name: getattr(taken, name) for name in taken.__slots__} | {"owner": "two"})

    assert {} == end(conn, twin)
    assert 1 == len(end(conn, taken))


def test_an_action_that_is_planned_again_waits_for_its_delay(conn, clock):
    plan(conn)
    (taken,) = send(conn)
    end(conn, taken, ActionState.PLANNED, delay=timedelta(seconds=30), uncertain=True)

    assert [] == send(conn)
    clock.advance(timedelta(seconds=30))
    (again,) = send(conn)
    assert (2, True) == (again.attempt, again.uncertain)


@pytest.mark.parametrize("state, left", [("posted", 0), ("failed", 0), ("unknown", 1), ("planned", 1)])
def test_a_run_is_purged_once_its_actions_are_posted_or_failed(conn, clock, state, left):
    """
    INVARIANT: a run with an action that is not settled is not purged.

    Breaks if settling forgets to count down, or counts down what a person still has to decide.
    """
    taken = claimed_run(conn, phases=("plan",))
    complete(conn, [completion(taken, actions=(new_action(taken),))])
    clock.advance(timedelta(days=400))
    assert 0 == purge(conn, {RunState.SUCCEEDED: timedelta(days=1)})
    (sending,) = send(conn)
    end(conn, sending, ActionState(state))

    assert pending(conn, taken.run_id) == left
    assert 1 - left == purge(conn, {RunState.SUCCEEDED: timedelta(days=1)})


def test_what_a_superseded_run_has_planned_is_never_sent(conn):
    """
    INVARIANT: a superseded run sends nothing more that was not already being sent.

    Breaks if superseding leaves its planned actions, or takes one that is under way.
    """
    older = plan(conn, many=2, subject="pr-1").run_id
    (under_way,) = send(conn)
    enqueue(conn, [new_run(subject="pr-1")])

    assert ["failed", "sending"] == sorted(states(conn, older))
    assert 1 == pending(conn, older)
    assert [] == send(conn, limit=5)
    dropped = next(each for each in actions_of(conn, older) if each.state == "failed")
    assert "Superseded" == dropped.error["type"]
    assert not retry_action(conn, dropped.id)
    end(conn, under_way, upstream_id="7")
    assert 0 == pending(conn, older)


def test_what_may_have_arrived_for_a_superseded_run_is_only_looked_up(conn, clock):
    plan(conn, subject="pr-1")
    (sending,) = send(conn)
    end(conn, sending, ActionState.PLANNED, uncertain=True)
    enqueue(conn, [new_run(subject="pr-1")])

    (again,) = send(conn)

    assert (True, True) == (again.uncertain, again.superseded)


def test_a_canceled_run_keeps_what_its_complete_phases_have_planned(conn):
    following = plan(conn)
    cancel(conn, [following.run_id])

    assert 1 == len(send(conn))


def test_a_failed_or_unknown_action_is_sent_again_when_a_person_says_so(conn):
    following = plan(conn, many=2)
    for state in (ActionState.FAILED, ActionState.UNKNOWN):
        end(conn, send(conn)[0], state, uncertain=True)
    assert 1 == pending(conn, following.run_id)

    for each in list_actions(conn):
        assert retry_action(conn, each.id)
        assert not retry_action(conn, each.id)

    assert 2 == pending(conn, following.run_id)
    # The doubt stays for who has a lookup; the word is for one send.
    assert [(1, True, True)] * 2 == [(again.attempt, again.uncertain, again.released) for again in send(conn, limit=2)]


def test_a_person_says_what_became_of_an_unknown_action(conn):
    following = plan(conn, many=2)
    one, two = send(conn, limit=2)
    assert not resolve_action(conn, one.action_id, upstream_id="9")
    end(conn, one, ActionState.UNKNOWN)
    end(conn, two, ActionState.UNKNOWN)
    assert [each.id for each in list_actions(conn, state=ActionState.UNKNOWN)] == sorted(
        [one.action_id, two.action_id], reverse=True
    )

    assert resolve_action(conn, one.action_id, upstream_id="9", by="ada")
    assert resolve_action(conn, two.action_id, upstream_id=None, by="ada")

    assert "9" == action(conn, one.action_id).upstream_id
    assert ["failed", "posted"] == sorted(states(conn, following.run_id))
    assert 0 == pending(conn, following.run_id)
    assert not resolve_action(conn, uuid7(), upstream_id=None)
    assert not retry_action(conn, uuid7())
    assert action(conn, uuid7()) is None


def hook(stopped):
    return [NewAction(uuid7(), stopped.run_id, stopped.phase, f"on_{stopped.state}", "hook", '{"a":1}')]


@pytest.mark.parametrize("verdict", [Verdict.BLOCK, Verdict.FAIL])
def test_a_hook_is_planned_once_a_run_and_phase_however_often_it_stops_there(conn, verdict):
    """
    INVARIANT: hooks run once a run and phase.

    Breaks if the second stop plans the hook again, or counts one that it did not plan.
    """
    taken = claimed_run(conn)
    fail(conn, [failure(taken, verdict)], hooks=hook)
    assert (["planned"], 1) == (states(conn, taken.run_id), pending(conn, taken.run_id))
    if verdict is Verdict.BLOCK:
        resume(conn, taken.run_id)
        fail(conn, [failure(claim_again(conn, taken.run_id), verdict)], hooks=hook)

    assert (["planned"], 1) == (states(conn, taken.run_id), pending(conn, taken.run_id))


def test_an_attempt_that_is_tried_again_plans_no_hook(conn):
    taken = claimed_run(conn)
    fail(conn, [failure(taken)], hooks=hook)

    assert [] == states(conn, taken.run_id)


def test_a_run_whose_workers_died_too_often_plans_its_hook_too(conn, clock):
    taken = claimed_run(conn, max_losses=1)
    clock.advance(timedelta(hours=2))
    rescue(conn, hooks=hook)

    (found,) = actions_of(conn, taken.run_id)
    assert (found.name, found.idempotency_key) == ("on_failed", f"{taken.run_id}:plan:on_failed")


def test_a_run_without_actions_is_asked_nothing(conn):
    assert [] == actions_of(conn, queued_run(conn))
