"""move_phase: a new name for a phase that live runs have not completed, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from runclaim.events import EventType
from runclaim.ledger import read
from runclaim.ledger.body.acts import answer_act, begin_act
from runclaim.ledger.cancel import cancel
from runclaim.ledger.doors import move_phase as verb
from runclaim.ledger.doors import pinned_runs
from runclaim.ledger.doors.pinned_runs import PhaseMove, Pinned, Standing
from runclaim.ledger.put_back import put_back
from runclaim.ledger.release import release
from runclaim.states import RunState
from tests.ledger.concurrency import together
from tests.ledger.factories import (
    NOTHING,
    blocked_run,
    canceled_run,
    claim_again,
    claimed_run,
    failed_run,
    finish,
    queued_run,
    succeeded_run,
    take,
    waiting_run,
    wanted,
)
from tests.ledger.sql import row


def of(old: str, new: str = "publish", **how) -> PhaseMove:
    return PhaseMove(**{"project": "default", "flow": "review", "old": old, "new": new} | how)


def pinned(conn, move) -> list[Pinned]:
    return pinned_runs.movable(conn, move, after=None, limit=100)[0]


def moves(conn, move, *, seen=None, attempts=9, **how) -> list[str]:
    """Move what can be moved, or what was `seen`."""
    settings = {"queue": "press", "max_attempts": attempts, "max_losses": attempts} | how
    return verb.move_phase(conn, move, pinned(conn, move) if seen is None else seen, **settings)


def test_a_run_at_the_phase_gets_its_name_its_queue_and_its_budgets_and_is_rung_for(conn, clock):
    run_id = queued_run(conn)
    conn.execute(text("UPDATE runclaim_runs SET dispatches = 3"))
    before = row(conn, run_id)

    assert [run_id] == moves(conn, of("plan"), by="ann")
    after = row(conn, run_id)
    assert ["publish", "deliver", "compound"] == list(read.run(conn, run_id).phases)
    assert ("publish", "press", 9, 9) == tuple(after[name] for name in ("phase", "queue", "max_attempts", "max_losses"))
    assert (before["state"], before["fence"], 0, clock.now) == tuple(
        after[name] for name in ("state", "fence", "dispatches", "dispatch_due_at")
    )
    assert [(run_id, "publish", "press")] == [
        (each.run_id, each.phase, each.queue) for each in verb.due(conn, [run_id])
    ]
    last = read.journal(conn, run_id)[-1]
    assert (EventType.RUN_PHASE_MOVED, {"from": "plan", "to": "publish", "by": "ann"}) == (last.type, last.data)


def test_a_phase_that_is_still_to_come_changes_nothing_else_of_its_run(conn, clock):
    run_id = queued_run(conn)
    before = row(conn, run_id)
    moves(conn, of("deliver"))
    after = row(conn, run_id)

    assert ["plan", "publish", "compound"] == list(read.run(conn, run_id).phases)
    assert {"phases", "updated_at"} >= {name for name in after if after[name] != before[name]}
    assert ("plan", "publish", "compound") == take(conn, wanted(conn, run_id)).phases


def test_a_message_of_the_old_name_does_nothing_and_one_of_the_new_name_starts_it(conn, clock):
    """
    INVARIANT: in a mixed fleet, a worker of the old release neither runs a moved run nor puts it off.

    Breaks if a claim, or what puts runs back, does not compare the phase that its message names.
    """
    run_id = queued_run(conn)
    old = wanted(conn, run_id)
    moves(conn, of("plan"))

    assert take(conn, old, phase="plan") is None
    assert set() == put_back(conn, [(run_id, old.seen)], task="review.plan", delay=NOTHING)
    assert "publish" == take(conn, old, phase="publish").phase
    assert "run.started" in [each.type for each in read.journal(conn, run_id)]


@pytest.mark.parametrize("made", [failed_run, succeeded_run, canceled_run])
def test_a_run_that_has_ended_is_left_alone(conn, clock, made):
    made(conn)

    assert ([], Standing(0, 0, 0, 0)) == (moves(conn, of("compound")), pinned_runs.standing(conn, of("compound")))


def test_a_running_run_is_left_alone_and_counted(conn, clock):
    """
    INVARIANT: what a worker holds is not changed under it.

    Breaks if the statement leaves the state out: the worker would complete by a list that the run no longer has.
    """
    claim = claimed_run(conn)
    before = row(conn, claim.run_id)
    seen = [Pinned(claim.run_id, claim.fence, 0, phases_of(conn, claim.run_id), clock.now, RunState.QUEUED)]

    assert ([], []) == (moves(conn, of("deliver")), moves(conn, of("deliver"), seen=seen))
    assert Standing(0, 1, 0, 0) == pinned_runs.standing(conn, of("deliver"))
    assert before == row(conn, claim.run_id)


def phases_of(conn, run_id) -> str:
    return conn.execute(text("SELECT CAST(phases AS TEXT) FROM runclaim_runs WHERE id = :id"), {"id": run_id}).scalar()


def test_a_phase_that_is_complete_keeps_its_name(conn, clock):
    claim = claimed_run(conn)
    finish(conn, claim, inline=False)

    assert ([], Standing(0, 0, 0, 0)) == (moves(conn, of("plan")), pinned_runs.standing(conn, of("plan")))
    assert [claim.run_id] == moves(conn, of("deliver"))
    assert [("plan", "complete"), ("publish", "pending"), ("compound", "pending")] == list(
        read.run(conn, claim.run_id).phases.items()
    )


def test_a_run_that_has_the_new_name_already_is_left_alone(conn, clock):
    queued_run(conn)

    assert ([], Standing(0, 0, 0, 1)) == (
        moves(conn, of("plan", "compound")),
        pinned_runs.standing(conn, of("plan", "compound")),
    )


@pytest.mark.parametrize("made", [waiting_run, blocked_run])
def test_a_run_that_waits_for_a_signal_or_a_person_keeps_waiting_under_the_new_name(conn, clock, made):
    found = made(conn)
    run_id = found if isinstance(found, str) else found.run_id
    before = row(conn, run_id)

    assert [run_id] == moves(conn, of(before["phase"]))
    after = row(conn, run_id)
    assert ("publish", before["state"], before["waits_for"]) == (after["phase"], after["state"], after["waits_for"])
    assert [] == verb.due(conn, [run_id])


def test_a_phase_that_has_spent_more_than_the_new_budget_has_one_more_attempt(conn, clock):
    """INVARIANT: a queued run can be claimed. Breaks if the new budget is taken although it is spent already."""
    run_id = queued_run(conn, max_attempts=5)
    conn.execute(text("UPDATE runclaim_runs SET attempts = 4, losses = 2"))
    moves(conn, of("plan"), attempts=1)

    assert (5, 3) == ((after := row(conn, run_id))["max_attempts"], after["max_losses"])
    assert 5 == claim_again(conn, run_id).attempt


def test_the_answers_that_a_body_has_are_found_under_the_new_name_and_a_call_in_doubt_keeps_its_run(conn, clock):
    """
    INVARIANT: no call is made twice because its phase has another name.

    Breaks if what a body has begun stays under the old name, or is looked up by a key that nobody sent.
    """
    claim = claimed_run(conn)
    begin_act(conn, claim, "ask")
    release(conn, [claim])
    in_doubt = (moves(conn, of("plan")), pinned_runs.standing(conn, of("plan")))
    again = claim_again(conn, claim.run_id)
    answer_act(conn, again, "ask", "7")
    release(conn, [again])

    assert ([], Standing(0, 0, 1, 0)) == in_doubt
    assert [claim.run_id] == moves(conn, of("plan"))
    assert (False, "posted", 7) == begin_act(conn, claim_again(conn, claim.run_id), "ask")


def test_only_the_runs_that_are_named_are_moved(conn, clock):
    first, second, _third = queued_run(conn, "a"), queued_run(conn, "b"), queued_run(conn, "c")
    queued_run(conn, "a", project="theirs")
    queued_run(conn, "a", flow="other")

    assert 1 == pinned_runs.standing(conn, of("plan", run_ids=(first,))).movable
    assert [first] == moves(conn, of("plan", run_ids=(first,)))
    assert [second] == moves(conn, of("plan", key="b"))
    assert 1 == pinned_runs.standing(conn, of("plan")).movable
    assert [] == moves(conn, of("plan", run_ids=("nobody's",)))


def test_a_phase_whose_name_is_in_another_name_is_another_phase(conn, clock):
    queued_run(conn, phases=("plan_b", "deliver"))

    assert (0, []) == (pinned_runs.standing(conn, of("plan")).movable, moves(conn, of("plan")))


def test_the_pages_have_each_run_once(conn, clock):
    runs = {queued_run(conn) for _ in range(5)}
    found, after = [], None
    while True:
        page, after = pinned_runs.movable(conn, of("plan"), after=after, limit=2)
        found += [each.run_id for each in page]
        if after is None:
            break

    assert (5, runs) == (len(found), set(found))


def test_a_move_that_was_decided_by_an_older_list_moves_nothing(conn, clock):
    run_id = queued_run(conn)
    seen = pinned(conn, of("plan"))
    moves(conn, of("plan", "publish"))

    assert [] == moves(conn, of("plan", "print"), seen=seen)
    assert "publish" == row(conn, run_id)["phase"]


def test_a_move_that_was_decided_before_the_phase_was_complete_moves_nothing(conn, clock):
    """
    INVARIANT: a phase that is complete keeps its name.

    Breaks if the statement leaves out the fence and the cursor: the list is the same before and after the completion.
    """
    run_id = queued_run(conn)
    seen = pinned(conn, of("plan"))
    finish(conn, claim_again(conn, run_id), inline=False)

    assert [] == moves(conn, of("plan"), seen=seen)
    assert ("deliver", ["plan", "deliver", "compound"]) == (
        row(conn, run_id)["phase"],
        list(read.run(conn, run_id).phases),
    )


@pytest.mark.parametrize("other", ["claim", "cancel", "move"])
def test_of_a_move_and_another_verb_each_comes_whole_before_or_after_the_other(database, clock, other):
    """
    INVARIANT: whichever comes first, the run has one list, and its claim has the same.

    Breaks if the move leaves out the fence or the list that it was decided by, or the claim the phase of its message.
    """
    for _ in range(10):
        with database.begin() as conn:
            run_id = queued_run(conn)
            message, seen = wanted(conn, run_id), pinned(conn, of("plan", run_ids=(run_id,)))
        others = {
            "claim": lambda conn, message=message: take(conn, message),
            "cancel": lambda conn, run_id=run_id: cancel(conn, [run_id]),
            "move": lambda conn, seen=seen: moves(conn, of("plan", "print"), seen=seen),
        }
        works = [lambda conn, seen=seen: moves(conn, of("plan"), seen=seen), others[other]]
        mine, theirs = together(2, lambda number, works=works: database.run(works[number]))
        with database.read() as conn:
            after = read.run(conn, run_id)

        # A run that was moved first is canceled after it; nothing else does both.
        assert ("cancel" == other and bool(theirs)) or bool(mine) != bool(theirs)
        assert ("publish" if mine else "print" if other == "move" else "plan") == next(iter(after.phases))
        assert after.phase == next(iter(after.phases))


def test_a_move_beside_a_completion_leaves_one_list_and_the_phase_at_its_cursor(database, clock):
    """INVARIANT: the phase of a run is the one at its cursor. Breaks if a move writes it by a cursor that moved on."""
    for _ in range(10):
        with database.begin() as conn:
            claim = claimed_run(conn)
        works = [lambda conn: moves(conn, of("deliver")), lambda conn, claim=claim: finish(conn, claim, inline=False)]
        mine, theirs = together(2, lambda number, works=works: database.run(works[number]))
        with database.read() as conn:
            after = read.run(conn, claim.run_id)

        assert theirs is not None, "a completion that is current is never refused"
        assert ("publish" if mine else "deliver") == after.phase == list(after.phases)[1]
        database.run(lambda conn, claim=claim: cancel(conn, [claim.run_id]))
