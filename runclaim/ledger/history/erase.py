"""
erase: what an application has put into an ended run is blanked; the run and its key stay, so that nothing starts again.

Guarded by the run's own row, which is written first and then holds off a retry: a run that is live, or that an action
still waits for, is left alone. What names things stays: ids, keys, subjects, phases, the names of actions and signals,
and what the other side calls an action, by which a person finds what was sent there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, bindparam, case, delete, literal_column, null, or_, select, true, update

from runclaim.events import EventType
from runclaim.ledger.fence import locked
from runclaim.ledger.history.erased import MARK, WAS_ERASED
from runclaim.ledger.history.unused_subjects import Subject
from runclaim.ledger.journal import Entry, append, entries_of, request_data
from runclaim.models import (
    actions,
    acts,
    events,
    findings,
    maps,
    named_sessions,
    phase_results,
    runs,
    sessions,
    signals,
    untold,
)
from runclaim.sql.rowset import Id, as_id, few, pack, rowset, verbatim

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ColumnElement, Connection, Select, Table

#: Instead of the text of a key that is blanked as well.
BLANK_KEY: Final = "(erased)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """Which runs of a project to erase: those of a key of a flow, or of a subject, of one flow or of all."""

    project: str
    flow: str | None = None
    key: str | None = None
    subject: str | None = None


_named: Final = few(rowset("named", run_id=Id()))
_is_over: Final = and_(runs.c.finished_at.is_not(None), runs.c.pending_actions == 0)
_over: Final = locked(_named, and_(runs.c.id == _named.c.run_id, _is_over))
_blank: Final = {
    "input": MARK,
    "error": null(),
    **dict.fromkeys(("headers", "trace_context", "output_ref", "error_signature", "item", "tags", "progress"), null()),
    # Below every generation: `ledger.retry` refuses it.
    "generation": literal_column("-1"),
}
_RUNS: Final = update(runs).where(runs.c.id == _over.c.run_id, _is_over).returning(runs.c.id, runs.c.fence)
_ERASE: Final = _RUNS.values(**_blank)
_ERASE_WITH_KEY: Final = _RUNS.values(**_blank, key=BLANK_KEY, subject=null())
_erased: Final = few(rowset("erased", run_id=Id()))
_nothing: Final = verbatim(literal_column("'null'", Text()))


def _of_them(table: Table) -> ColumnElement[bool]:
    return table.c.run_id.in_(select(_erased.c.run_id))


_without_reason: Final = case((phase_results.c.skipped.is_not(None), "erased"), else_=null())
_has_failed: Final = actions.c.state == literal_column("'failed'", Text())
_CHILDREN: Final = (
    update(phase_results)
    .where(_of_them(phase_results))
    .values(result=_nothing, output_ref=null(), skipped=_without_reason),
    update(events).where(_of_them(events), events.c.data.is_not(None)).values(data=null()),
    # One that failed could be sent again.
    update(actions)
    .where(_of_them(actions))
    .values(payload=_nothing, error=null(), superseded=or_(actions.c.superseded, _has_failed)),
    update(signals).where(_of_them(signals)).values(payload=_nothing),
    update(untold).where(_of_them(untold)).values(error=null()),
    delete(acts).where(_of_them(acts)),
    delete(findings).where(_of_them(findings)),
    delete(maps).where(_of_them(maps)),
    delete(sessions).where(_of_them(sessions)),
    delete(named_sessions).where(_of_them(named_sessions)),
)


def erase(conn: Connection, run_ids: Collection[str], *, by: str = "", call: str = "", keys: bool = False) -> set[str]:
    """
    Blank what these runs hold; with `keys` the texts of their keys and subjects too, of which hashes stay.

    Returns: the runs that were erased; one that is missing is live, waits for an action, or does not exist. `by` goes
    into the journal. The caller owns the transaction, and after an ambiguous commit asks `erased` with the same nonce
    `call`. Raises: InputError for `by`.
    """
    data = request_data(by, call)
    named = {"named": pack({"run_id": as_id(run_id)} for run_id in run_ids)}
    fences: dict[str, int] = dict(conn.execute(_ERASE_WITH_KEY if keys else _ERASE, named).all())
    if fences:
        rows = {"erased": pack({"run_id": run_id} for run_id in fences)}
        for statement in _CHILDREN:
            conn.execute(statement, rows)
        append(conn, [Entry(run_id, EventType.RUN_ERASED, fence, data=data) for run_id, fence in fences.items()])
    return set(fences)


def erased(conn: Connection, run_ids: Collection[str], *, call: str) -> set[str]:
    """Read back: the answer of the `erase` that was given this nonce; empty when it has not committed."""
    return {each.run_id for each in entries_of(conn, run_ids, call=call)}


def _of(whose: Whose, *columns: ColumnElement[Any]) -> tuple[Select[Any], dict[str, Any]]:
    given = {name: getattr(whose, name) for name in Whose.__slots__}
    values = {f"its_{name}": value for name, value in given.items() if value is not None}
    same = [runs.c[name.removeprefix("its_")] == bindparam(name, type_=Text()) for name in values]
    return select(*columns).where(*same), values


def ended_runs(conn: Connection, whose: Whose, *, keys: bool = False, limit: int) -> dict[str, Subject | None]:
    """
    At most `limit` of the runs that can be erased and are not, with their subjects.

    With `keys` also those that were erased and still have the texts of their keys.
    """
    asked, values = _of(whose, runs.c.id, runs.c.project, runs.c.flow, runs.c.subject)
    asked = asked.where(_is_over, true() if keys else ~WAS_ERASED).order_by(runs.c.id).limit(limit)
    found = conn.execute(asked, values).all()
    return {run_id: None if about[-1] is None else Subject(*about) for run_id, *about in found}


def unended_runs(conn: Connection, whose: Whose, *, limit: int) -> list[str]:
    """At most `limit` of the runs that cannot be erased yet: they are live, or an action waits."""
    asked, values = _of(whose, runs.c.id)
    return list(conn.execute(asked.where(~_is_over).order_by(runs.c.id).limit(limit), values).scalars())
