"""The one table of moves, and what is derived from it."""

from __future__ import annotations

import pytest
from sqlalchemy import CheckConstraint

from runclaim.models import runs
from runclaim.states import LIVE, MOVES, TERMINAL, PhaseStatus, RunState, phase_status


def test_every_state_is_reached_and_every_live_one_is_left():
    moves = set().union(*MOVES.values())

    assert {after for _, after in moves} == set(RunState)
    assert {before for before, _ in moves} >= LIVE


def test_terminal_states_absorb_and_failed_is_left_only_by_a_retry():
    """
    INVARIANT: what has ended stays as it ended; a failed run goes on only when somebody says so.

    Breaks if a verb is given a move out of a terminal state.
    """
    leaving = {(verb, before) for verb, moves in MOVES.items() for before, _ in moves if before in TERMINAL}

    assert {("retry", RunState.FAILED)} == leaving


def test_a_run_is_live_or_has_ended():
    assert LIVE | TERMINAL == set(RunState)
    assert not LIVE & TERMINAL


def test_only_a_claim_and_a_completion_leave_a_run_held():
    holding = {verb for verb, moves in MOVES.items() for _, after in moves if after is RunState.RUNNING}

    assert {"claim", "complete", "cancel"} == holding


@pytest.mark.parametrize(
    "name, states",
    [("ck_runclaim_runs_state_known", set(RunState)), ("ck_runclaim_runs_finished_iff_terminal", TERMINAL)],
)
def test_the_constraint_names_the_states_of_the_table(name, states):
    (found,) = [each for each in runs.constraints if isinstance(each, CheckConstraint) and each.name == name]

    assert {state for state in RunState if f"'{state}'" in str(found.sqltext)} == states


@pytest.mark.parametrize(
    "state, here",
    [
        (RunState.QUEUED, PhaseStatus.PENDING),
        (RunState.RUNNING, PhaseStatus.ACTIVE),
        (RunState.WAITING, PhaseStatus.PENDING),
        (RunState.BLOCKED, PhaseStatus.BLOCKED),
        (RunState.FAILED, PhaseStatus.FAILED),
        (RunState.CANCELED, PhaseStatus.PENDING),
        (RunState.SUPERSEDED, PhaseStatus.PENDING),
    ],
)
def test_the_status_of_a_phase_follows_from_the_cursor_and_the_state(state, here):
    assert [
        PhaseStatus.COMPLETE, here, PhaseStatus.PENDING
    ] == [phase_status(state, 1, position) for position in range(3)]  # fmt: skip


def test_all_phases_of_a_run_that_succeeded_are_complete():
    assert {PhaseStatus.COMPLETE} == {phase_status(RunState.SUCCEEDED, 3, position) for position in range(3)}
