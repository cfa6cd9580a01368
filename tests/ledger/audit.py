"""
Every transition that any test makes, held against the table of legal moves.

A trigger notes each change of a run's state or fence; the journal tells which verb made it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from sqlalchemy import text

from runclaim.events import EventType
from runclaim.states import MOVES, RunState

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ON_POSTGRESQL = (
    """CREATE TABLE test_moves (id bigint GENERATED ALWAYS AS IDENTITY, run_id uuid,
    state_before text, state_after text, fence_before bigint, fence_after bigint)""",
    """CREATE FUNCTION test_note_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_moves (run_id, state_before, state_after, fence_before, fence_after)
    VALUES (NEW.id, OLD.state, NEW.state, OLD.fence, NEW.fence);
    RETURN NULL;
END $$""",
    """CREATE TRIGGER test_note_move AFTER UPDATE ON runclaim_runs FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR OLD.fence <> NEW.fence) EXECUTE FUNCTION test_note_move()""",
)
_ON_SQLITE = (
    """CREATE TABLE test_moves (id integer PRIMARY KEY, run_id text, state_before text, state_after text,
    fence_before integer, fence_after integer)""",
    """CREATE TRIGGER test_note_move AFTER UPDATE ON runclaim_runs FOR EACH ROW
    WHEN OLD.state <> NEW.state OR OLD.fence <> NEW.fence
BEGIN
    INSERT INTO test_moves (run_id, state_before, state_after, fence_before, fence_after)
    VALUES (NEW.id, OLD.state, NEW.state, OLD.fence, NEW.fence);
END""",
)
#: In this order: the journal's first match names the verb.
_VERBS = {
    EventType.PHASE_COMPLETED: "complete",
    EventType.PHASE_SKIPPED: "complete",
    EventType.PHASE_FAILED: "fail",
    EventType.PHASE_RELEASED: "release",
    EventType.PHASE_RESCUED: "rescue",
    EventType.RUN_SUPERSEDED: "supersede",
    EventType.RUN_RETRIED: "retry",
    EventType.RUN_RESUMED: "resume",
    EventType.PHASE_STARTED: "claim",
    EventType.RUN_CANCELED: "cancel",
    # Last: one that nobody waits for stands beside another event of the same fence.
    EventType.RUN_SIGNALED: "signal",
}
_ANY_VERB = frozenset().union(*MOVES.values())


def install(conn: Connection) -> None:
    for statement in _ON_SQLITE if conn.dialect.name == "sqlite" else _ON_POSTGRESQL:
        conn.execute(text(statement))


def forget(conn: Connection) -> None:
    """Leave out what was noted until now, such as a state that a test set by hand."""
    conn.execute(text("DELETE FROM test_moves"))


def check_moves(conn: Connection) -> None:
    """
    INVARIANT: every transition is one of `states.MOVES` for its verb, raises the fence by one, and is journaled.

    Breaks if a verb touches a run in a state it should leave alone, forgets the fence, or writes no event.
    """
    journal: dict[tuple[str, int], set[str]] = defaultdict(set)
    for run_id, fence, kind in conn.execute(text("SELECT run_id, fence, type FROM runclaim_events")):
        journal[str(run_id), fence].add(kind)
    standing = {str(run_id) for (run_id,) in conn.execute(text("SELECT id FROM runclaim_runs"))}
    moves = conn.execute(
        text("SELECT run_id, state_before, state_after, fence_before, fence_after FROM test_moves ORDER BY id")
    )
    for run_id, before, after, fence_before, fence_after in moves:
        kinds = journal[str(run_id), fence_after]
        verb = next((name for kind, name in _VERBS.items() if kind in kinds), None)
        move = (RunState(before), RunState(after))

        assert fence_after == fence_before + 1, f"{move}: fence {fence_before} -> {fence_after}"
        # A purged run took its journal along.
        assert verb is not None or str(run_id) not in standing, f"{move} of {run_id} is not in its journal: {kinds}"
        assert move in (MOVES[verb] if verb else _ANY_VERB), f"{verb} moved {before} to {after}"
