"""
idempotency_keys: what was done under an Idempotency-Key, kept to be answered again.

The answer is written in the transaction that does what is asked: there is never an answer without its effect, nor an
effect whose answer is lost. It holds a status and names a run, whatever the run holds; it is kept until a day after its
run has ended.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import (
    BindParameter,
    Double,
    SmallInteger,
    Text,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    text,
    true,
    update,
)

from runclaim.models import answers, runs
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import Id, as_json, pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from sqlalchemy import Connection

KEPT_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer, and the fingerprint of the request that got it."""

    fingerprint: str
    run_id: str
    status: int
    headers: dict[str, str]
    project: str | None


_answer: Final = rowset(
    "given",
    key_hash=Text(),
    fingerprint=Text(),
    run_id=Id(),
    status=SmallInteger(),
    headers=Text(),
    project=Text(),
    keep_seconds=Double(),
)
_KEEP: Final = upsert(
    answers,
    lambda new: (
        new.from_select(
            ["key_hash", "fingerprint", "run_id", "status", "headers", "project", "expires_at"],
            select(_answer.c.key_hash, _answer.c.fingerprint, _answer.c.run_id, _answer.c.status)
            .add_columns(as_json(_answer.c.headers), _answer.c.project, shifted(now(), _answer.c.keep_seconds))
            .where(true()),
        )
        .on_conflict_do_nothing(index_elements=["key_hash"])
        .returning(answers.c.key_hash)
    ),
)
_FIND: Final = select(
    answers.c.fingerprint, answers.c.run_id, answers.c.status, answers.c.headers, answers.c.project
).where(answers.c.key_hash == bindparam("its_hash"))
_TRY: Final = text("SELECT pg_try_advisory_xact_lock(:key)")
_keep: Final[BindParameter[float]] = bindparam("keep_seconds", type_=Double())
_expired: Final = (
    select(answers.c.key_hash, answers.c.run_id)
    .where(answers.c.expires_at <= select(now()).scalar_subquery())
    .order_by(answers.c.expires_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
    .cte("expired")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
# A run that has not ended, or ended less than a day ago, still needs its answer.
_needed: Final = and_(
    runs.c.id == answers.c.run_id,
    or_(runs.c.finished_at.is_(None), runs.c.finished_at > shifted(now(), -_keep)),
)
_ours: Final = answers.c.key_hash.in_(select(_expired.c.key_hash))
_PROLONG: Final = (
    update(answers)
    .where(_ours, _needed)
    .values(expires_at=shifted(func.coalesce(runs.c.finished_at, now()), _keep))
    .returning(answers.c.key_hash)
)
_FORGET: Final = (
    delete(answers)
    .where(_ours, ~select(true()).select_from(runs).where(_needed).correlate(answers).exists())
    .returning(answers.c.key_hash)
)


def begin(conn: Connection, key_hash: str) -> bool:
    """
    Whether this transaction is the only one that works on the key now.

    PostgreSQL tells at once; on SQLite there is one writer at a time, so the answer is always true.
    """
    if conn.dialect.name != "postgresql":
        return True
    key = int(key_hash[:15], 16)
    return bool(conn.execute(_TRY, {"key": key}).scalar_one())


def find(conn: Connection, key_hash: str) -> KeptAnswer | None:
    """What was answered under the key, or `None`."""
    row = conn.execute(_FIND, {"its_hash": key_hash}).one_or_none()
    return None if row is None else KeptAnswer(*row)


def keep(conn: Connection, key_hash: str, answer: KeptAnswer) -> bool:
    """Keep an answer in the transaction that it tells of; false when another was kept first: roll back."""
    row = {
        "key_hash": key_hash,
        "fingerprint": answer.fingerprint,
        "run_id": answer.run_id,
        "status": answer.status,
        "headers": json.dumps(answer.headers),
        "project": answer.project,
        "keep_seconds": KEPT_SECONDS,
    }
    return conn.execute(_KEEP[conn.dialect.name], {"given": pack([row])}).one_or_none() is not None


def count_answers(conn: Connection, project: str, *, at_most: int) -> int:
    """How many answers are kept for a project; counting ends at `at_most`."""
    some = select(answers.c.key_hash).where(answers.c.project == project).limit(at_most).subquery()
    return int(conn.execute(select(func.count()).select_from(some)).scalar_one())


def forget_answers(conn: Connection, *, limit: int = 500) -> int:
    """
    Go through at most `limit` expired answers: those of runs that still need theirs are kept on, the rest goes.

    Returns: how many were gone through; call again until there are none. The caller owns the transaction.
    """
    values = {"at_most": limit, "keep_seconds": KEPT_SECONDS}
    kept = conn.execute(_PROLONG, values).all()
    return len(kept) + len(conn.execute(_FORGET, values).all())
