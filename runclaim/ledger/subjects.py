"""
One live run per subject: a newer run supersedes the older ones, even while they run.

The subject's row is written before any run of it, so two enqueues of one subject follow each other. Subjects
are taken in sorted order: two batches cannot wait for each other.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Integer, Text, and_, select, true, update

from runclaim.events import EventType
from runclaim.ledger.actions.plan import drop_actions
from runclaim.ledger.fence import UNHELD, state
from runclaim.ledger.journal import Entry, append
from runclaim.models import runs, subjects
from runclaim.sql.clock import now
from runclaim.sql.rowset import pack, rowset
from runclaim.sql.upsert import upsert
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from sqlalchemy import ColumnElement, Connection

    from runclaim.ledger.new_run import NewRun

_about: Final = rowset("about", project=Text(), flow=Text(), subject=Text(), many=Integer())
_ABOUT_ROWS: Final = (
    select(_about.c.project, _about.c.flow, _about.c.subject, _about.c.many)
    .where(true())
    .order_by(_about.c.project, _about.c.flow, _about.c.subject)
)


def _count_subjects(new: Any) -> Any:
    inserted = new.from_select(["project", "flow", "subject", "generation"], _ABOUT_ROWS)
    return inserted.on_conflict_do_update(
        index_elements=["project", "flow", "subject"],
        set_={"generation": subjects.c.generation + inserted.excluded.generation},
    ).returning(subjects.c.project, subjects.c.flow, subjects.c.subject, subjects.c.generation)


_COUNT_SUBJECTS: Final = upsert(subjects, _count_subjects)

_newest: Final = rowset("newest", project=Text(), flow=Text(), subject=Text(), generation=BigInteger())
_outdated: Final = (
    select(runs.c.id)
    .join_from(
        runs,
        _newest,
        and_(
            runs.c.project == _newest.c.project,
            runs.c.flow == _newest.c.flow,
            runs.c.subject == _newest.c.subject,
            runs.c.generation < _newest.c.generation,
        ),
    )
    .where(runs.c.subject.is_not(None), runs.c.finished_at.is_(None))
    # The runs of several subjects, locked in the order in which every verb locks runs.
    .order_by(runs.c.id)
    .with_for_update(of=runs, key_share=True)
    .cte("outdated")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
#: What a run has that ends because a newer one is there.
SUPERSEDED: Final[Mapping[str, ColumnElement[Any]]] = {
    "state": state(RunState.SUPERSEDED),
    "fence": runs.c.fence + 1,
    **UNHELD,
    "finished_at": now(),
}
_SUPERSEDE: Final = (
    update(runs)
    .where(runs.c.id.in_(select(_outdated.c.id)), runs.c.finished_at.is_(None))
    .values(**SUPERSEDED)
    .returning(runs.c.id, runs.c.fence, runs.c.project, runs.c.flow, runs.c.subject)
)


def count_generations(conn: Connection, fresh: Collection[NewRun]) -> dict[str, int]:
    """Run id → generation, for the runs that have a subject; a batch's runs of one subject follow in its order."""
    many = Counter((each.project, each.flow, each.subject) for each in fresh if each.subject is not None)
    if not many:
        return {}
    rows = [{"project": p, "flow": f, "subject": s, "many": count} for (p, f, s), count in many.items()]
    found = conn.execute(_COUNT_SUBJECTS[conn.dialect.name], {"about": pack(rows)})
    following = {(p, f, s): newest - many[p, f, s] for p, f, s, newest in found}
    generations: dict[str, int] = {}
    for each in fresh:
        if each.subject is not None:
            following[each.project, each.flow, each.subject] += 1
            generations[each.run_id] = following[each.project, each.flow, each.subject]
    return generations


def supersede(conn: Connection, fresh: Iterable[NewRun], generations: dict[str, int]) -> None:
    """End every live run of these runs' subjects that is older than the newest of them."""
    newest: dict[tuple[str, str, str], NewRun] = {}
    for each in fresh:
        if each.subject is not None:
            newest[each.project, each.flow, each.subject] = each
    if not newest:
        return
    rows = [
        {"project": p, "flow": f, "subject": s, "generation": generations[each.run_id]}
        for (p, f, s), each in newest.items()
    ]
    found = conn.execute(_SUPERSEDE, {"newest": pack(rows)}).all()
    drop_actions(conn, [run_id for run_id, *_ in found])
    append(
        conn,
        [
            Entry(run_id, EventType.RUN_SUPERSEDED, fence, data={"by_run": newest[project, flow, subject].run_id})
            for run_id, fence, project, flow, subject in found
        ],
    )
