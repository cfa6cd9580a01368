"""The CHECK constraints: the database itself refuses what no verb may write."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from runclaim.states import LIVE, MOVES, TERMINAL, RunState
from tests.ledger import audit
from tests.ledger.factories import finish
from tests.ledger.sql import count

HELD = "lease_expires_at = enqueued_at, deadline_at = enqueued_at, owner = 'somebody'"
FREE = "lease_expires_at = NULL, deadline_at = NULL, owner = NULL"


def put(conn, state, *, held, finished):
    finished_at = "enqueued_at" if finished else "NULL"
    conn.execute(
        text(f"UPDATE runclaim_runs SET state = '{state}', {HELD if held else FREE}, finished_at = {finished_at}")
    )


@pytest.mark.parametrize("state", RunState)
def test_a_state_goes_with_exactly_its_lease_and_its_end(conn, queued_run, state):
    """
    INVARIANT: a lease exists exactly while somebody holds the run, an end exactly once it has ended.

    Breaks if the CHECK constraints and `states` stop saying the same.
    """
    allowed = []
    for held, finished in itertools.product([False, True], repeat=2):
        try:
            with conn.begin_nested():
                put(conn, state, held=held, finished=finished)
            allowed.append((held, finished))
        except IntegrityError:
            pass
    audit.forget(conn)

    assert [(state is RunState.RUNNING, state in TERMINAL)] == allowed


@pytest.mark.parametrize(
    "name, change",
    [
        ("state_known", "state = 'dead'"),
        ("lease_iff_running", "lease_expires_at = enqueued_at"),
        ("deadline_iff_running", "deadline_at = enqueued_at"),
        ("owner_iff_running", "owner = 'somebody'"),
        ("finished_iff_terminal", "finished_at = enqueued_at"),
        ("attempts_within_budget", "attempts = max_attempts + 1"),
        ("attempts_within_budget", "attempts = -1"),
        ("losses_within_budget", "losses = max_losses + 1"),
        ("losses_within_budget", "losses = -1"),
        ("pending_actions_not_negative", "pending_actions = -1"),
    ],
)
def test_a_refusal_names_its_constraint(conn, queued_run, name, change):
    with pytest.raises(IntegrityError, match=f"ck_runclaim_runs_{name}"), conn.begin_nested():
        conn.execute(text(f"UPDATE runclaim_runs SET {change}"))


@pytest.mark.parametrize("child", ["phase_results", "events"])
def test_a_child_without_its_run_is_refused(conn, claimed_run, child):
    finish(conn, claimed_run)

    with pytest.raises(IntegrityError), conn.begin_nested():
        conn.execute(text(f"UPDATE runclaim_{child} SET run_id = '00000000-0000-0000-0000-000000000000'"))
    assert count(conn, child) > 0


def test_every_state_is_reached_and_every_live_one_left():
    moves = set().union(*MOVES.values())

    assert {after for _, after in moves} == set(RunState)
    assert {before for before, _ in moves} >= LIVE


def test_terminal_states_absorb_and_failed_is_left_only_by_a_retry():
    leaving = {(verb, before) for verb, moves in MOVES.items() for before, _ in moves if before in TERMINAL}

    assert {("retry", RunState.FAILED)} == leaving
