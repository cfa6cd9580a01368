"""
The results of completed phases.

Their primary key is the second guard against completing a phase twice, independent of the fence: a violation
rolls the whole completion back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Integer, Text, insert, select, true

from runclaim.clock import now, shifted
from runclaim.ledger.fence import proofs
from runclaim.models import phase_results
from runclaim.rowset import as_json, pack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, FromClause, Insert

    from runclaim.ledger.complete import Completion

_given: Final = proofs(
    "given",
    phase=Text(),
    position=Integer(),
    result=Text(),
    skipped=Text(),
    worker=Text(),
    attempts=Integer(),
    ran_seconds=Double(),
)
_COLUMNS: Final = [
    "run_id",
    "fence",
    "owner",
    "phase",
    "position",
    "result",
    "skipped",
    "worker",
    "attempts",
    "started_at",
    "finished_at",
]
_ROWS: Final = select(
    _given.c.run_id,
    _given.c.fence,
    _given.c.owner,
    _given.c.phase,
    _given.c.position,
    as_json(_given.c.result),
    _given.c.skipped,
    _given.c.worker,
    _given.c.attempts,
    shifted(now(), -_given.c.ran_seconds),
    now(),
).where(true())
_RECORD: Final = insert(phase_results).from_select(_COLUMNS, _ROWS)


def results_of(moved: FromClause) -> Insert:
    """For one statement with the completion itself: records what the parameter `given` has of the runs that moved."""
    return insert(phase_results).from_select(_COLUMNS, _ROWS.where(_given.c.run_id.in_(select(moved.c.id))))


def given(completions: Iterable[Completion]) -> list[dict[str, Any]]:
    """The rowset `given`."""
    return [_given_row(each) for each in completions]


def record(conn: Connection, completions: Iterable[Completion]) -> None:
    """Write the results of completions whose runs have just moved on, in the same transaction."""
    conn.execute(_RECORD, {"given": pack(given(completions))})


def _given_row(completion: Completion) -> dict[str, Any]:
    claim = completion.claim
    return claim.proof() | {
        "phase": claim.phase,
        "position": claim.cursor,
        "result": completion.result,
        "skipped": completion.skipped,
        "worker": completion.worker,
        "attempts": claim.attempt,
        "ran_seconds": completion.ran.total_seconds(),
    }
