"""
One run a key: the key's row is inserted before the run exists.

Whoever inserts it makes the run; everyone else waits for that transaction and finds its run. The row
outlives the purged run, so a late duplicate never starts the work again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Text, and_, delete, exists, func, select, true, tuple_
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite

from runclaim.clock import now, shifted
from runclaim.errors import KeyConflict, LedgerUnavailable
from runclaim.models import run_keys, runs
from runclaim.rowset import Id, pack, rowset
from runclaim.secrets import redact, veiled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from runclaim.ledger.new_run import NewRun

#: A holder that rolls back between our two statements makes one more round; more than this is a fault.
_ROUNDS: Final = 10

_keys: Final = rowset("keys", namespace=Text(), key_hash=Text(), run_id=Id(), fingerprint=Text(), keep_seconds=Double())
_KEY_ROWS: Final = (
    select(_keys.c.namespace, _keys.c.key_hash, _keys.c.run_id, _keys.c.fingerprint)
    .add_columns(shifted(now(), _keys.c.keep_seconds))
    .where(true())
    .order_by(_keys.c.namespace, _keys.c.key_hash)
)
_TAKE_KEYS: Final = {
    dialect: upsert(run_keys)
    .from_select(["namespace", "key_hash", "run_id", "fingerprint", "expires_at"], _KEY_ROWS)
    .on_conflict_do_nothing(index_elements=["namespace", "key_hash"])
    .returning(run_keys.c.run_id)
    for dialect, upsert in (("postgresql", insert_on_postgresql), ("sqlite", insert_on_sqlite))
}
# A limit that leaves nothing out: PostgreSQL expects a hundred rows without it, and reads all keys to find one.
_few: Final = select(*_keys.c).limit(select(func.count()).select_from(_keys).scalar_subquery()).subquery("few")
_same_key: Final = and_(run_keys.c.namespace == _few.c.namespace, run_keys.c.key_hash == _few.c.key_hash)
# An expired key whose run is purged is free; while the run stands, its key stands.
_FREE_EXPIRED: Final = delete(run_keys).where(
    tuple_(run_keys.c.namespace, run_keys.c.key_hash).in_(select(_few.c.namespace, _few.c.key_hash)),
    run_keys.c.expires_at <= now(),
    ~exists(select(true()).select_from(runs).where(runs.c.id == run_keys.c.run_id).correlate(run_keys)),
)
_GIVE_BACK: Final = delete(run_keys).where(
    tuple_(run_keys.c.namespace, run_keys.c.key_hash, run_keys.c.run_id).in_(
        select(_few.c.namespace, _few.c.key_hash, _few.c.run_id)
    )
)
_FIND_KEYS: Final = (
    select(run_keys.c.namespace, run_keys.c.key_hash, run_keys.c.run_id, run_keys.c.fingerprint)
    .add_columns(runs.c.input, and_(run_keys.c.expires_at <= now(), runs.c.id.is_(None)))
    .join_from(run_keys, _few, _same_key)
    .outerjoin(runs, runs.c.id == run_keys.c.run_id)
)


def key_of(run: NewRun) -> tuple[str, str]:
    """What identifies the run of a key: its namespace and the key's hash."""
    return run.namespace, run.key.hash


def first_of_each_key(wanted: Iterable[NewRun]) -> dict[tuple[str, str], NewRun]:
    """The first run of each key in a batch. Raises: KeyConflict when two of one key have different inputs."""
    first: dict[tuple[str, str], NewRun] = {}
    for each in wanted:
        kept = first.setdefault(key_of(each), each)
        if kept.fingerprint != each.fingerprint:
            raise _conflict(each, kept.run_id, kept.input)
    return first


def take_keys(conn: Connection, first: dict[tuple[str, str], NewRun]) -> tuple[set[str], dict[tuple[str, str], str]]:
    """The run ids whose key rows this call inserted, and for every key the run that holds it."""
    taken: set[str] = set()
    holders: dict[tuple[str, str], str] = {}
    missing = dict(first)
    for _ in range(_ROUNDS):
        rows = {"keys": pack(_key_row(each) for each in missing.values())}
        taken |= set(conn.execute(_TAKE_KEYS[conn.dialect.name], rows).scalars())
        for key, each in list(missing.items()):
            if each.run_id in taken:
                holders[key] = missing.pop(key).run_id
        try:
            _find_holders(conn, missing, holders)
        except KeyConflict:
            # The caller may go on with its transaction: a key without a run could never get one.
            conn.execute(_GIVE_BACK, {"keys": pack(_key_row(each) for each in first.values() if each.run_id in taken)})
            raise
        if not missing:
            return taken, holders
    raise LedgerUnavailable(f"{len(missing)} run keys kept changing hands; try again")


def _find_holders(
    conn: Connection, missing: dict[tuple[str, str], NewRun], holders: dict[tuple[str, str], str]
) -> None:
    """Move each missing key that somebody holds to `holders`; a free or vanished one stays missing."""
    if not missing:
        return
    rows = {"keys": pack(_key_row(each) for each in missing.values())}
    some_are_free = False
    for namespace, key_hash, run_id, fingerprint, recorded, is_free in conn.execute(_FIND_KEYS, rows).all():
        if is_free:
            some_are_free = True
            continue
        each = missing.pop((namespace, key_hash))
        if fingerprint != each.fingerprint:
            raise _conflict(each, run_id, recorded)
        holders[namespace, key_hash] = run_id
    if some_are_free:
        conn.execute(_FREE_EXPIRED, rows)


def _conflict(run: NewRun, run_id: str, recorded: Any) -> KeyConflict:
    old, new = (value if isinstance(value, dict) else {} for value in (recorded, run.input))
    fields = [name for name in {**old, **new} if old.get(name) != new.get(name)] if old else []
    differs = {redact(name): (veiled(old.get(name)), veiled(new.get(name))) for name in fields}
    return KeyConflict(run.flow, redact(run.key.text), run_id, differs)


def _key_row(run: NewRun) -> dict[str, Any]:
    return {
        "namespace": run.namespace,
        "key_hash": run.key.hash,
        "run_id": run.run_id,
        "fingerprint": run.fingerprint,
        "keep_seconds": run.keep_key.total_seconds(),
    }
