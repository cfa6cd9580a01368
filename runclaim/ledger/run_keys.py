"""
One run per key: the key's row is inserted before the run exists.

The caller that inserts it creates the run; all others wait for that transaction and find its run. The row
outlives the purged run, so a late duplicate never starts the work again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Text, and_, delete, exists, select, true, tuple_

from runclaim.codec import is_sealed
from runclaim.errors import InputError, KeyConflict, LedgerUnavailable
from runclaim.keys import fingerprint
from runclaim.ledger.history.erased import is_erased
from runclaim.models import run_keys, runs
from runclaim.secrets import redact, veiled
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import Id, few, pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from runclaim.ledger.new_run import NewRun

#: A holder that rolls back between our two statements makes one more round; more than this is a fault.
ROUNDS: Final = 10

_keys: Final = rowset("keys", namespace=Text(), key_hash=Text(), run_id=Id(), fingerprint=Text(), keep_seconds=Double())
KEY_COLUMNS: Final = ["namespace", "key_hash", "run_id", "fingerprint", "expires_at"]
#: The rows of the rowset `keys`, in the order in which everybody locks keys.
KEY_ROWS: Final = (
    select(_keys.c.namespace, _keys.c.key_hash, _keys.c.run_id, _keys.c.fingerprint)
    .add_columns(shifted(now(), _keys.c.keep_seconds))
    .where(true())
    .order_by(_keys.c.namespace, _keys.c.key_hash)
)
#: Inserts the keys that are free, and returns their runs.
TAKE_KEYS: Final = upsert(
    run_keys,
    lambda new: (
        new.from_select(KEY_COLUMNS, KEY_ROWS)
        .on_conflict_do_nothing(index_elements=["namespace", "key_hash"])
        .returning(run_keys.c.run_id)
    ),
)
#: The same rows, each to be looked up.
FEW: Final = few(_keys)
SAME_KEY: Final = and_(run_keys.c.namespace == FEW.c.namespace, run_keys.c.key_hash == FEW.c.key_hash)
# An expired key whose run is purged is free; while the run exists, its key is kept.
FREE_EXPIRED: Final = delete(run_keys).where(
    tuple_(run_keys.c.namespace, run_keys.c.key_hash).in_(select(FEW.c.namespace, FEW.c.key_hash)),
    run_keys.c.expires_at <= now(),
    ~exists(select(true()).select_from(runs).where(runs.c.id == run_keys.c.run_id).correlate(run_keys)),
)
GIVE_BACK: Final = delete(run_keys).where(
    tuple_(run_keys.c.namespace, run_keys.c.key_hash, run_keys.c.run_id).in_(
        select(FEW.c.namespace, FEW.c.key_hash, FEW.c.run_id)
    )
)
_FIND_KEYS: Final = (
    select(run_keys.c.namespace, run_keys.c.key_hash, run_keys.c.run_id, run_keys.c.fingerprint)
    .add_columns(runs.c.input, and_(run_keys.c.expires_at <= now(), runs.c.id.is_(None)))
    .join_from(run_keys, FEW, SAME_KEY)
    .outerjoin(runs, runs.c.id == run_keys.c.run_id)
)

_FIND_RUNS: Final = select(runs.c.id).join_from(run_keys, FEW, SAME_KEY).join(runs, runs.c.id == run_keys.c.run_id)


def find_runs(conn: Connection, namespace: str, hashes: Iterable[str]) -> list[str]:
    """The runs under these hashes; a key whose run was purged has none."""
    rows = [{"namespace": namespace, "key_hash": each} for each in hashes]
    return list(conn.execute(_FIND_RUNS, {"keys": pack(rows)}).scalars())


def key_of(run: NewRun) -> tuple[str, str]:
    """What identifies the run of a key: its namespace and the key's hash."""
    return run.namespace, run.key.hash


def recorded_fingerprint(conn: Connection, namespace: str, key_hash: str) -> str | None:
    """The fingerprint of the input that a key stands for, or `None` when the key is free."""
    asked = select(run_keys.c.fingerprint).where(run_keys.c.namespace == namespace, run_keys.c.key_hash == key_hash)
    return conn.execute(asked).scalar_one_or_none()


def first_of_each_key(wanted: Iterable[NewRun]) -> dict[tuple[str, str], NewRun]:
    """The first run of each key in a batch. Raises: KeyConflict when two of one key have different inputs."""
    first: dict[tuple[str, str], NewRun] = {}
    for each in wanted:
        kept = first.setdefault(key_of(each), each)
        if kept.fingerprint != each.fingerprint:
            raise _conflict(each, kept.run_id, kept.input)
    return first


def take_keys(
    conn: Connection, first: dict[tuple[str, str], NewRun], *, were_held: bool = False
) -> tuple[set[str], dict[tuple[str, str], str]]:
    """
    The run ids whose key rows this call inserted, and for every key the run that holds it.

    `were_held` says that the caller has just found them held, so that it is asked first by whom.
    """
    taken: set[str] = set()
    holders: dict[tuple[str, str], str] = {}
    missing = dict(first)
    if not missing:
        return taken, holders
    for turn in range(ROUNDS):
        if turn or not were_held:
            rows = {"keys": pack(key_row(each) for each in missing.values())}
            taken |= set(conn.execute(TAKE_KEYS[conn.dialect.name], rows).scalars())
        for key, each in list(missing.items()):
            if each.run_id in taken:
                holders[key] = missing.pop(key).run_id
        try:
            find_holders(conn, missing, holders)
        except KeyConflict:
            # The caller may continue its transaction: a key without a run could never get one.
            conn.execute(GIVE_BACK, {"keys": pack(key_row(each) for each in first.values() if each.run_id in taken)})
            raise
        if not missing:
            return taken, holders
    raise restless(len(missing))


def find_holders(
    conn: Connection, missing: dict[tuple[str, str], NewRun], holders: dict[tuple[str, str], str]
) -> dict[tuple[str, str], str]:
    """
    Move each missing key that another transaction holds to `holders`; a free or vanished one stays missing.

    Returns: the recorded fingerprints of inputs that are the same by value only: their type has changed since. Raises:
    KeyConflict when the holder has another input.
    """
    by_value: dict[tuple[str, str], str] = {}
    if not missing:
        return by_value
    rows = {"keys": pack(key_row(each) for each in missing.values())}
    some_are_free = False
    for namespace, key_hash, run_id, recorded_print, recorded, is_free in conn.execute(_FIND_KEYS, rows).all():
        if is_free:
            some_are_free = True
            continue
        each = missing.pop((namespace, key_hash))
        if recorded_print != each.fingerprint:
            known = None if is_erased(recorded) or is_sealed(recorded) else recorded
            if known is None or not _is_same(each, known):
                raise _conflict(each, run_id, known)
            by_value[namespace, key_hash] = recorded_print
        holders[namespace, key_hash] = run_id
    if some_are_free:
        conn.execute(FREE_EXPIRED, rows)
    return by_value


def restless(many: int) -> LedgerUnavailable:
    """The error of keys that are taken and given back all the time."""
    return LedgerUnavailable(f"{many} run keys kept changing hands; try again")


def _is_same(run: NewRun, recorded: Any) -> bool:
    """Whether a recorded input is the run's, as its type reads it now."""
    try:
        return fingerprint(run.comparable(recorded)) == run.fingerprint
    except InputError:
        return False


def _conflict(run: NewRun, run_id: str, recorded: Any) -> KeyConflict:
    old, new = (value if isinstance(value, dict) else {} for value in (recorded, run.input))
    ours, theirs = (_compared(run, value) for value in (new, old))
    fields = (
        [name for name in {**old, **new} if fingerprint(theirs.get(name)) != fingerprint(ours.get(name))] if old else []
    )
    differs = {redact(name): (veiled(old.get(name)), veiled(new.get(name))) for name in fields}
    return KeyConflict(run.flow, redact(run.key.text), run_id, differs)


def _compared(run: NewRun, plain: dict[str, Any]) -> dict[str, Any]:
    try:
        found = run.comparable(plain)
    except InputError:
        return plain
    return found if isinstance(found, dict) else plain


def key_row(run: NewRun) -> dict[str, Any]:
    """A run's row of the rowset `keys`."""
    return {
        "namespace": run.namespace,
        "key_hash": run.key.hash,
        "run_id": run.run_id,
        "fingerprint": run.fingerprint,
        "keep_seconds": run.keep_key.total_seconds(),
    }
