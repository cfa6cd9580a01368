"""
Planning: actions are written with the completion that plans them, and dropped with the run that is superseded.

Runs are locked before actions, here and everywhere; each run counts the actions that it still waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Text, and_, case, false, insert, literal_column, null, select, true, update

from runclaim.codec import sealed
from runclaim.models import actions, runs
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, as_json, pack, rowset, verbatim
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement, Connection

    from runclaim.states import RunState


@dataclass(frozen=True, slots=True)
class NewAction:
    """A call that a phase plans; `payload` is JSON text, `finding_id` a finding of the same completion or `None`."""

    id: str
    run_id: str
    phase: str
    #: Tells the actions of the phase apart: with the run and the phase the idempotency key.
    name: str
    kind: str
    payload: str
    finding_id: str | None = None

    @property
    def idempotency_key(self) -> str:
        """The same at every send."""
        return f"{self.run_id}:{self.phase}:{self.name}"


@dataclass(frozen=True, slots=True)
class Stopped:
    """A run that has just failed or is blocked, as a hook is told of it."""

    run_id: str
    flow: str
    key: str
    phase: str
    state: RunState
    error: dict[str, Any] | None


#: What is planned when a run stops; each action once per run and phase, however often it stops there.
Hooks = Callable[[Stopped], Iterable[NewAction]]


def action_state(value: str) -> ColumnElement[str]:
    """A state as a literal of the statement, so that a prepared plan can use the partial index."""
    return literal_column(f"'{value}'", Text())


#: Of every new action.
_FRESH: Final = {
    "state": action_state("planned"),
    "attempts": literal_column("0"),
    "uncertain": false(),
    "superseded": false(),
    "fence": literal_column("0"),
    "available_at": now(),
    "planned_at": now(),
}
_NEW: Final = ["id", "run_id", "phase", "name", "kind", "finding_id", "idempotency_key"]
_planned: Final = rowset(
    "planned",
    id=Id(),
    run_id=Id(),
    phase=Text(),
    name=Text(),
    kind=Text(),
    finding_id=Id(),
    idempotency_key=Text(),
    payload=Text(),
)
_ADD_COLUMNS: Final = [*_NEW, "payload", *_FRESH]
_ADD_ROWS: Final = (
    select(*(_planned.c[name] for name in _NEW))
    .add_columns(verbatim(_planned.c.payload), *_FRESH.values())
    .where(true())
)
_ADD: Final = insert(actions).from_select(_ADD_COLUMNS, _ADD_ROWS, include_defaults=False)
_ADD_ONCE: Final = upsert(
    actions,
    lambda new: (
        new.from_select(_ADD_COLUMNS, _ADD_ROWS, include_defaults=False)
        .on_conflict_do_nothing(index_elements=["run_id", "phase", "name"])
        .returning(actions.c.run_id)
    ),
)

OPEN: Final = actions.c.state.in_([action_state("planned"), action_state("sending")])


def add_actions(conn: Connection, new: Collection[NewAction]) -> None:
    """Plan the actions of phases that complete in this transaction, after their findings; the runs count them."""
    if new:
        conn.execute(_ADD, {"planned": pack(map(_row, new))})


def add_actions_once(conn: Connection, new: Collection[NewAction]) -> None:
    """As `add_actions`, for what may be planned already under its name; the run's count is written here."""
    if new:
        made = conn.execute(_ADD_ONCE[conn.dialect.name], {"planned": pack(map(_row, new))}).scalars().all()
        count_pending(conn, {run_id: made.count(run_id) for run_id in made})


_amounts: Final = rowset("amounts", run_id=Id(), more=BigInteger())
_counting: Final = (
    select(*_amounts.c)
    .join_from(_amounts, runs, runs.c.id == _amounts.c.run_id)
    .order_by(runs.c.id)
    .with_for_update(of=runs, key_share=True)
    .cte("counting")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_COUNT: Final = (
    update(runs)
    .where(runs.c.id == _counting.c.run_id)
    .values(pending_actions=runs.c.pending_actions + _counting.c.more)
)


def count_pending(conn: Connection, more: Mapping[str, int]) -> None:
    """Add to how many actions each run still waits for; a run with any is not purged."""
    if more:
        conn.execute(_COUNT, {"amounts": pack({"run_id": run_id, "more": many} for run_id, many in more.items())})


_outdated: Final = rowset("outdated", run_id=Id())
_unsent: Final = and_(actions.c.state == action_state("planned"), ~actions.c.uncertain)
_SUPERSEDED: Final = '{"type":"Superseded","message":"its run was superseded before it was sent"}'
_DROP: Final = (
    update(actions)
    .where(actions.c.run_id == _outdated.c.run_id, OPEN)
    .values(
        superseded=true(),
        # A sender keeps its claim.
        fence=case((_unsent, actions.c.fence + 1), else_=actions.c.fence),
        state=case((_unsent, action_state("failed")), else_=actions.c.state),
        error=case((_unsent, as_json(literal_column(f"'{_SUPERSEDED}'", Text()))), else_=actions.c.error),
        ended_at=case((_unsent, now()), else_=null()),
    )
    .returning(actions.c.run_id, actions.c.state)
)


def drop_actions(conn: Connection, run_ids: Collection[str]) -> None:
    """
    In the transaction that supersedes these runs: what was planned and never sent is not sent any more.

    What is being sent, or may have arrived, is marked: it may be looked up, and is never sent again.
    """
    if run_ids:
        found = conn.execute(_DROP, {"outdated": pack({"run_id": run_id} for run_id in run_ids)}).all()
        dropped = [run_id for run_id, state in found if state == "failed"]
        count_pending(conn, {run_id: -dropped.count(run_id) for run_id in dropped})


def _row(new: NewAction) -> dict[str, Any]:
    return asdict(new) | {"idempotency_key": new.idempotency_key, "payload": sealed(new.payload)}
