"""
One run a key: the key's row is inserted before the run exists.

Whoever inserts it makes the run; everyone else waits for that transaction and finds its run. The row
outlives the purged run, so a late duplicate never starts the work again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Text, and_, delete, exists, select, true
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite

from runclaim.clock import now, shifted
from runclaim.errors import KeyConflict, LedgerUnavailable
from runclaim.models import run_keys, runs
from runclaim.rowset import Id, pack, rowset

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
_same_key: Final = and_(run_keys.c.namespace == _keys.c.namespace, run_keys.c.key_hash == _keys.c.key_hash)
# An expired key whose run is purged is free; while the run stands, its key stands.
_FREE_EXPIRED: Final = delete(run_keys).where(
    exists(select(true()).select_from(_keys).where(_same_key).correlate(run_keys)),
    run_keys.c.expires_at <= now(),
    ~exists(select(true()).select_from(runs).where(runs.c.id == run_keys.c.run_id).correlate(run_keys)),
)
_FIND_KEYS: Final = (
    select(run_keys.c.namespace, run_keys.c.key_hash, run_keys.c.run_id, run_keys.c.fingerprint)
    .add_columns(runs.c.input)
    .join_from(run_keys, _keys, _same_key)
    .outerjoin(runs, runs.c.id == run_keys.c.run_id)
)


def key_of(run: NewRun) -> tuple[str, str]:
    return run.namespace, run.key.hash


def first_of_each_key(wanted: Iterable[NewRun]) -> dict[tuple[str, str], NewRun]:
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
        if missing:
            _find_holders(conn, missing, holders)
        if not missing:
            return taken, holders
    raise LedgerUnavailable(f"{len(missing)} run keys kept changing hands; try again")


def _find_holders(
    conn: Connection, missing: dict[tuple[str, str], NewRun], holders: dict[tuple[str, str], str]
) -> None:
    """Move each missing key that somebody holds to `holders`; an expired or vanished one stays missing."""
    rows = {"keys": pack(_key_row(each) for each in missing.values())}
    conn.execute(_FREE_EXPIRED, rows)
    for namespace, key_hash, run_id, fingerprint, recorded in conn.execute(_FIND_KEYS, rows):
        each = missing.pop((namespace, key_hash))
        if fingerprint != each.fingerprint:
            raise _conflict(each, run_id, recorded)
        holders[namespace, key_hash] = run_id


def _conflict(run: NewRun, run_id: str, recorded: Any) -> KeyConflict:
    old, new = (value if isinstance(value, dict) else {} for value in (recorded, run.input))
    fields = [name for name in {**old, **new} if old.get(name) != new.get(name)] if old else []
    return KeyConflict(run.flow, run.key.text, run_id, {name: (old.get(name), new.get(name)) for name in fields})


def _key_row(run: NewRun) -> dict[str, Any]:
    return {
        "namespace": run.namespace,
        "key_hash": run.key.hash,
        "run_id": run.run_id,
        "fingerprint": run.fingerprint,
        "keep_seconds": run.keep_key.total_seconds(),
    }
