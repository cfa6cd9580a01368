"""
The results of completed phases.

Their primary key is the second guard against completing a phase twice, independent of the fence: a violation
rolls the whole completion back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Integer, Text, insert, select, true

from runclaim.codec import sealed, sealed_text
from runclaim.ledger.fence import proofs
from runclaim.models import phase_results
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import pack, verbatim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, FromClause, Insert
    from sqlalchemy.types import TypeEngine

    from runclaim.ledger.completion import Completion

#: What a result's row is made of, in addition to the proof of its claim.
RESULT: Final[dict[str, TypeEngine[Any]]] = {
    "phase": Text(),
    "position": Integer(),
    "result": Text(),
    "skipped": Text(),
    "output_ref": Text(),
    "by_worker": Text(),
    "attempts": Integer(),
    "ran_seconds": Double(),
}
_given: Final = proofs("given", **RESULT)
_COLUMNS: Final = [
    "run_id",
    "fence",
    "owner",
    "phase",
    "position",
    "result",
    "skipped",
    "output_ref",
    "worker",
    "attempts",
    "started_at",
    "finished_at",
]


def results_of(found: FromClause) -> Insert:
    """Records the result of each row of `found`, which has the proof of a claim and the columns of `RESULT`."""
    rows = select(found.c.run_id, found.c.fence, found.c.owner, found.c.phase, found.c.position)
    rows = rows.add_columns(verbatim(found.c.result), found.c.skipped, found.c.output_ref, found.c.by_worker)
    rows = rows.add_columns(found.c.attempts)
    rows = rows.add_columns(shifted(now(), -found.c.ran_seconds), now())
    return insert(phase_results).from_select(_COLUMNS, rows.where(true()))


_RECORD: Final = results_of(_given)


def record(conn: Connection, completions: Iterable[Completion]) -> None:
    """Write the results of completions whose runs have just moved on, in the same transaction."""
    conn.execute(_RECORD, {"given": pack(result_row(each) for each in completions)})


def result_row(completion: Completion) -> dict[str, Any]:
    """A completion's proof and the columns of `RESULT`."""
    claim = completion.claim
    return claim.proof() | {
        "phase": claim.phase,
        "position": claim.cursor,
        "result": sealed(completion.result),
        "skipped": sealed_text(completion.skipped),
        "output_ref": sealed_text(completion.output_ref),
        "by_worker": completion.worker,
        "attempts": claim.attempt,
        "ran_seconds": completion.ran.total_seconds(),
    }
