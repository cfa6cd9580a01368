"""
The fence: who may write to a run.

Every write after a claim carries this one predicate. A claim that is no longer current matches no row,
so its writes are refused whatever its worker believes. The fence tells one transition from the next;
the owner tells two claims apart that a database failover gave the same fence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Text, and_, literal_column, null, select

from runclaim.errors import ClaimLost
from runclaim.models import runs
from runclaim.sql.rowset import Few, Id, few, pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import CTE, ColumnElement, Connection, FromClause
    from sqlalchemy.types import TypeEngine


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run the current phase of a run, and what its body needs to know."""

    run_id: str
    fence: int
    owner: str
    flow: str
    key: str
    subject: str | None
    phases: tuple[str, ...]
    cursor: int
    phase: str
    queue: str | None
    attempt: int
    max_attempts: int
    priority: int | None
    input: Any
    #: The enqueuer's trace, as the headers of W3C Trace Context.
    trace_context: dict[str, str] | None = None
    #: See `NewRun.headers`.
    headers: dict[str, Any] | None = None
    project: str = ""
    #: Its number among the runs of its key.
    rerun: int = 0

    def proof(self) -> dict[str, Any]:
        """The columns that `fence.held` compares."""
        return {"run_id": self.run_id, "fence": self.fence, "owner": self.owner}

    @property
    def is_last(self) -> bool:
        """Whether the run ends when this phase completes."""
        return self.cursor + 1 >= len(self.phases)


PROOF: Final[dict[str, TypeEngine[Any]]] = {"run_id": Id(), "fence": BigInteger(), "owner": Text()}
#: What a run without a claim has.
UNHELD: Final[Mapping[str, ColumnElement[Any]]] = {
    "owner": null(),
    "worker": null(),
    "lease_expires_at": null(),
    "deadline_at": null(),
}


def proofs(name: str, /, **more: TypeEngine[Any]) -> Few:
    """A rowset of claims that have to be current, with the columns `more` for each."""
    return few(rowset(name, **PROOF, **more))


def locked(rows: Few, guard: ColumnElement[bool], *more: ColumnElement[Any], pass_over: bool = False) -> CTE:
    """
    Those of `rows` whose runs pass `guard`, their runs locked in the order of their ids, with `more` of each run.

    A verb that writes several runs joins with this, so that two of them never wait for each other in a circle. With
    `pass_over` it leaves out runs whose rows another transaction holds, and waits for none. The UPDATE repeats its
    guard: what it writes is decided by the row as it is then.
    """
    return (
        select(*rows.c, *more)
        .join_from(rows, runs, guard)
        .order_by(runs.c.id)
        .with_for_update(of=runs, key_share=True, skip_locked=pass_over)
        .cte(f"locked_{rows.name}")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )


def held(claims: FromClause) -> ColumnElement[bool]:
    """The fence: true only for the rows that these claims still own."""
    return and_(
        runs.c.id == claims.c.run_id,
        stands_in(RunState.RUNNING),
        runs.c.fence == claims.c.fence,
        runs.c.owner == claims.c.owner,
    )


def is_live_in(project: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a run of that project has not ended; in the words of the index that serves it."""
    return and_(runs.c.project == project, runs.c.finished_at.is_(None))


def in_state(*states: RunState) -> ColumnElement[bool]:
    """The run is in one of `states`; written out, so that a prepared plan can use the partial indexes."""
    if len(states) == 1:
        return runs.c.state == state(states[0])
    return runs.c.state.in_([state(each) for each in states])


def stands_in(value: RunState) -> ColumnElement[bool]:
    """
    As `in_state`, for rows that are found by their id.

    PostgreSQL takes a set of ids for a hundred rows, and would rather read all that are in the state by a partial
    index: with a backlog, each claim would read the whole queue. No index is on this expression.
    """
    return runs.c.state.concat(literal_column("''", Text())) == state(value)


def state(value: RunState) -> ColumnElement[str]:
    """A state as a literal of the statement."""
    return literal_column(f"'{value}'", Text())


_asking: Final = proofs("asking")
_HOLD: Final = select(runs.c.id).join_from(_asking, runs, held(_asking)).with_for_update(of=runs, key_share=True)


def require_held(conn: Connection, claim: Claim) -> None:
    """
    Return only as the owner of the claim, and stay it until the caller's transaction ends: the run's row is locked.

    For what a body writes while it runs. Raises: ClaimLost.
    """
    if conn.execute(_HOLD, {"asking": pack([claim.proof()])}).one_or_none() is None:
        raise ClaimLost(claim.run_id, claim.phase, claim.fence)
