"""
A subject's row ends with the last run of the subject: without one, nothing compares generations any more.

A transaction that counts a generation holds the subject's row until its run is committed. So the row is locked first,
and a later statement, which sees whatever was committed before the lock, looks for runs. A row that another transaction
holds is passed over: purge holds runs by then, and waits for no lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import Text, and_, bindparam, delete, exists, or_, select, true, tuple_

from runclaim.models import runs, subjects
from runclaim.sql.rowset import few, pack, rowset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection


class Subject(NamedTuple):
    """What names a subject."""

    project: str
    flow: str
    subject: str


_left: Final = few(rowset("left_behind", project=Text(), flow=Text(), subject=Text()))
_key: Final = (subjects.c.project, subjects.c.flow, subjects.c.subject)
_is_named: Final = and_(*(subjects.c[name] == _left.c[name] for name in Subject._fields))
_of_it: Final = and_(*(runs.c[name] == subjects.c[name] for name in Subject._fields), runs.c.subject.is_not(None))
# Two questions, each in the words of an index.
_has_a_run: Final = or_(
    *(
        exists(select(true()).select_from(runs).where(_of_it, live_or_ended).correlate(subjects))
        for live_or_ended in (runs.c.finished_at.is_(None), runs.c.finished_at.is_not(None))
    )
)
_LOCK: Final = (
    select(*_key)
    .join_from(subjects, _left, _is_named)
    .where(~_has_a_run)
    .order_by(*_key)
    .with_for_update(of=subjects, skip_locked=True)
)
_END: Final = delete(subjects).where(
    tuple_(*_key).in_(select(_left.c.project, _left.c.flow, _left.c.subject)), ~_has_a_run
)
_FIRST: Final = select(*_key, _has_a_run.label("has_a_run")).order_by(*_key).limit(bindparam("at_most"))
_AFTER: Final = _FIRST.where(
    tuple_(*_key) > tuple_(*(bindparam(f"last_{name}", type_=Text()) for name in Subject._fields))
)


def end_subjects(conn: Connection, named: Collection[Subject]) -> int:
    """
    Delete the rows of those subjects that no run is left of; the next run of such a subject begins at generation 1.

    Returns: how many went. The caller owns the transaction.
    """
    if not named:
        return 0
    unused = conn.execute(_LOCK, {"left_behind": _packed(named)}).all()
    if not unused:
        return 0
    return conn.execute(_END, {"left_behind": _packed(Subject(*row) for row in unused)}).rowcount


def subjects_after(conn: Connection, last: Subject | None, *, limit: int) -> dict[Subject, bool]:
    """At most `limit` subjects in their order, after `last`: whether each has a run. Only reads."""
    place = {} if last is None else {f"last_{name}": value for name, value in last._asdict().items()}
    found = conn.execute(_FIRST if last is None else _AFTER, {"at_most": limit, **place})
    return {Subject(*named): bool(has_a_run) for *named, has_a_run in found}


def _packed(named: Iterable[Subject]) -> str:
    return pack(each._asdict() for each in named)
