"""
rerun: a new run of a key that has one, under the key's next number.

The key's row is the counter. The caller that raises it holds its lock until the run is there, so the numbers of a key
have no gaps and no duplicates, even when many processes rerun at once. The key then names the new run; the older one
ends if it is still live, and can no longer be retried.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, case, literal_column, select, update

from runclaim.errors import KeyConflict
from runclaim.events import EventType
from runclaim.ledger import run_keys as keys
from runclaim.ledger.actions.plan import drop_actions
from runclaim.ledger.enqueue import Enqueued, insert_runs
from runclaim.ledger.fence import locked
from runclaim.ledger.journal import Entry, append, request_data
from runclaim.ledger.run_keys import find_holders, first_of_each_key, key_of, key_row
from runclaim.ledger.subjects import SUPERSEDED
from runclaim.models import run_keys, runs
from runclaim.sql.rowset import Id, few, pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from runclaim.ledger.new_run import NewRun

    Key = tuple[str, str]


def _count(new: Any) -> Any:
    inserted = new.from_select(keys.KEY_COLUMNS, keys.KEY_ROWS)
    later = inserted.excluded.expires_at > run_keys.c.expires_at
    return inserted.on_conflict_do_update(
        index_elements=["namespace", "key_hash"],
        set_={
            "rerun": run_keys.c.rerun + 1,
            "expires_at": case((later, inserted.excluded.expires_at), else_=run_keys.c.expires_at),
        },
        where=and_(
            run_keys.c.fingerprint == inserted.excluded.fingerprint,
            # The same rerun again, after a commit whose answer was lost, counts nothing.
            run_keys.c.run_id != inserted.excluded.run_id,
        ),
        # The older run still: the next statement moves the key to the new one.
    ).returning(run_keys.c.namespace, run_keys.c.key_hash, run_keys.c.run_id, run_keys.c.rerun)


_COUNT: Final = upsert(run_keys, _count)
_MOVE: Final = update(run_keys).where(keys.SAME_KEY).values(run_id=keys.FEW.c.run_id)
_COUNT_BACK: Final = update(run_keys).where(keys.SAME_KEY).values(rerun=run_keys.c.rerun - 1)
_gone: Final = few(rowset("gone", run_id=Id()))
_outdated: Final = locked(_gone, runs.c.id == _gone.c.run_id)
_END: Final = (
    update(runs)
    .where(runs.c.id == _outdated.c.run_id, runs.c.finished_at.is_(None))
    .values(**SUPERSEDED)
    .returning(runs.c.id, runs.c.fence)
)
# Below every generation: `ledger.retry` refuses a run whose key has a newer one.
_OUTDATE: Final = update(runs).where(runs.c.id == _outdated.c.run_id).values(generation=literal_column("-1"))


def rerun(conn: Connection, wanted: Collection[NewRun], *, by: str = "") -> list[Enqueued]:
    """
    Make a new run for each wanted key: number 0 for a key that has none, else the next; `by` goes into the journal.

    A batch that wants a key twice makes one run of it. Doing it again after an ambiguous commit is safe as long as
    the key has no newer rerun; ask `reran` first. Publish only after the caller's commit; the caller owns the
    transaction. Raises: KeyConflict for a key that has another input; roll back.
    """
    first = first_of_each_key(wanted)
    data = request_data(by)
    numbers, older = _next_numbers(conn, first)
    fresh = [each for key, each in first.items() if key in numbers]
    if fresh:
        notes = {
            each.run_id: {"rerun": numbers[key], "of": older[key]} | data for key, each in first.items() if key in older
        }
        insert_runs(conn, fresh, reruns={each.run_id: numbers[key_of(each)] for each in fresh}, notes=notes)
        _outdate(conn, {older[key]: first[key].run_id for key in older})
    ids = {key: each.run_id for key, each in first.items()}
    return [Enqueued(run_id := ids[key_of(each)], created=run_id == each.run_id) for each in wanted]


def reran(conn: Connection, wanted: Collection[NewRun]) -> list[Enqueued] | None:
    """Read back: the answer of `rerun` if its transaction committed, else `None`. New ids are unique to this call."""
    ids = {key: each.run_id for key, each in first_of_each_key(wanted).items()}
    rows = {"gone": pack({"run_id": run_id} for run_id in ids.values())}
    there = conn.execute(select(runs.c.id).where(runs.c.id.in_(select(_gone.c.run_id))), rows).all()
    if len(there) < len(ids):
        return None
    return [Enqueued(run_id := ids[key_of(each)], created=run_id == each.run_id) for each in wanted]


def _next_numbers(conn: Connection, first: dict[Key, NewRun]) -> tuple[dict[Key, int], dict[Key, str]]:
    """The number of each key's new run, and the older run of each key that had one; the keys name the new runs."""
    numbers: dict[Key, int] = {}
    older: dict[Key, str] = {}
    missing = dict(first)
    for _ in range(keys.ROUNDS):
        rows = {"keys": pack(key_row(each) for each in missing.values())}
        for namespace, key_hash, run_id, number in conn.execute(_COUNT[conn.dialect.name], rows).all():
            key = namespace, key_hash
            numbers[key] = number
            if run_id != missing.pop(key).run_id:
                older[key] = run_id
        missing = _still_missing(conn, missing, first, numbers, older)
        if not missing:
            if older:
                conn.execute(_MOVE, {"keys": pack(key_row(first[key]) for key in older)})
            return numbers, older
    raise keys.restless(len(missing))


def _still_missing(
    conn: Connection,
    missing: dict[Key, NewRun],
    first: dict[Key, NewRun],
    numbers: dict[Key, int],
    older: dict[Key, str],
) -> dict[Key, NewRun]:
    """Those of `missing` to ask for once more: not the reruns that find themselves made."""
    holders: dict[Key, str] = {}
    asked = dict(missing)
    try:
        by_value = find_holders(conn, asked, holders)
    except KeyConflict:
        # The caller may continue its transaction: no number is spent, and no key is left without a run.
        conn.execute(_COUNT_BACK, {"keys": pack(key_row(first[key]) for key in older)})
        conn.execute(keys.GIVE_BACK, {"keys": pack(key_row(first[key]) for key in numbers if key not in older)})
        raise
    missing = {key: each for key, each in missing.items() if holders.get(key) != each.run_id}
    return {key: replace(each, fingerprint=by_value.get(key, each.fingerprint)) for key, each in missing.items()}


def _outdate(conn: Connection, newer: dict[str, str]) -> None:
    """End the older runs that are still live, whatever their subject, and leave none of them to a retry."""
    if not newer:
        return
    rows = {"gone": pack({"run_id": run_id} for run_id in newer)}
    conn.execute(_OUTDATE, rows)
    found = conn.execute(_END, rows).all()
    drop_actions(conn, [run_id for run_id, _ in found])
    ended = [Entry(run_id, EventType.RUN_SUPERSEDED, fence, data={"by_run": newer[run_id]}) for run_id, fence in found]
    append(conn, ended)
