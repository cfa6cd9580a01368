"""Actions against everything that may come for them or for their run, in every interleaving, on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import text

from runclaim.keys import nonce
from runclaim.ledger.actions.claim import claim_actions
from runclaim.ledger.actions.decide import actions_of, resolve_action, retry_action
from runclaim.ledger.actions.settle import ActionState, settle_actions
from runclaim.ledger.cancel import cancel
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue
from tests.ledger.factories import completion, new_run
from tests.ledger.played import fresh_keys, make, played, script
from tests.ledger.test_actions import LONGEST, Sent, new_action, plan

NOW = timedelta(0)


def pending_is_right(db):
    """Each run counts the actions that it still waits for."""
    asked = text(
        "SELECT id, pending_actions, (SELECT count(*) FROM runclaim_actions WHERE run_id = runclaim_runs.id"
        " AND state IN ('planned', 'sending', 'unknown')) FROM runclaim_runs"
    )
    return all(counted == there for _, counted, there in db.ask(lambda conn: conn.execute(asked).all()))


def claimed(db, subject=None):
    """A run of the subject with one action that is being sent; the action's claim."""
    make(db, plan, subject=subject)
    (taken,) = make(db, claim_actions, {"comment": LONGEST}, owner=nonce())
    return taken


def states(db, run_id):
    return [each.state for each in make(db, actions_of, run_id)]


def test_an_action_is_sent_or_dropped_with_its_run_and_never_both(db, level):
    """
    INVARIANT: what a superseding enqueue drops, no sender takes; what a sender has, no enqueue drops.

    Breaks if the claim passes over no locks, or the drop does not look at the state as it is then.
    """
    subjects = fresh_keys()

    def scripts():
        subject = next(subjects)
        following = make(db, plan, many=2, subject=subject)
        older.append(following.run_id)
        return [
            script(db, claim_actions, {"comment": LONGEST}, owner=nonce(), limit=2),
            script(db, enqueue, [new_run(subject=subject)]),
        ]

    older: list[str] = []
    for each in played(db, scripts):
        taken, _ = each.answers

        assert sorted(states(db, older[-1])) == sorted(["sending"] * len(taken) + ["failed"] * (2 - len(taken)))
        assert pending_is_right(db)
        make(db, settle_actions, [Sent(claim, ActionState.POSTED, NOW) for claim in taken])


def test_a_send_that_ends_while_its_run_is_superseded_is_recorded(db, level):
    """Breaks if a settle that passes a locked run over cannot be repeated, or is recorded twice."""
    subjects, ends = fresh_keys(), []

    def scripts():
        subject = next(subjects)
        ends.append(Sent(claimed(db, subject), ActionState.POSTED, NOW))
        return [
            script(db, settle_actions, ends[-1:]),
            script(db, enqueue, [new_run(subject=subject)]),
        ]

    for each in played(db, scripts):
        later = make(db, settle_actions, ends[-1:])

        assert [ActionState.POSTED] == [*each.answers[0].values(), *later.values()]
        assert pending_is_right(db)


def test_sends_of_one_run_end_and_it_completes_and_is_canceled_without_a_circle(db, level):
    def scripts():
        following = make(db, plan, many=2)
        one, two = make(db, claim_actions, {"comment": LONGEST}, owner=nonce(), limit=2)
        more = completion(following, actions=(new_action(following),))
        return [
            script(db, settle_actions, [Sent(one, ActionState.POSTED, NOW)]),
            script(db, settle_actions, [Sent(two, ActionState.FAILED, NOW)]),
            script(db, complete, [more]) if len(older) % 2 else script(db, cancel, [following.run_id]),
        ]

    older: list[int] = []
    for _ in played(db, scripts):
        older.append(1)

        assert pending_is_right(db)


def test_of_two_people_who_decide_at_once_one_is_told_that_he_is_late(db, level):
    def scripts():
        taken = claimed(db)
        make(db, settle_actions, [Sent(taken, ActionState.UNKNOWN, NOW)])
        return [
            script(db, resolve_action, taken.action_id, upstream_id="1"),
            script(db, retry_action, taken.action_id),
        ]

    for each in played(db, scripts):
        assert [False, True] == sorted(each.answers)
        assert pending_is_right(db)
