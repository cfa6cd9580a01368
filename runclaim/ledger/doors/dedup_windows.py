"""
The dedup window: the same delivery, or the same payload of a trigger, is taken once within a window.

One row per key and one atomic upsert: a window begins with the event that opened it, and at its very end the next
event opens another. Fixed buckets would let a pair through that falls on both sides of an edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Text, bindparam, delete, select, true

from runclaim.models import dedup_keys
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import Id, pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something that must not count twice within `window`: where it is unique, and its SHA-256 (64 hex digits)."""

    namespace: str
    key_hash: str
    window: timedelta


_seen: Final = rowset("seen", namespace=Text(), key_hash=Text(), run_id=Id(), nonce=Text(), window_seconds=Double())


def _open_windows(new: Any) -> Any:
    inserted = new.from_select(
        ["namespace", "key_hash", "run_id", "nonce", "expires_at"],
        select(*_seen.c["namespace", "key_hash", "run_id", "nonce"], shifted(now(), _seen.c.window_seconds))
        .where(true())
        # Sorted, so that two deliveries with several keys cannot wait for each other.
        .order_by(_seen.c.namespace, _seen.c.key_hash),
    )
    return inserted.on_conflict_do_update(
        index_elements=["namespace", "key_hash"],
        set_={name: inserted.excluded[name] for name in ("expires_at", "run_id", "nonce")},
        where=dedup_keys.c.expires_at <= now(),
    ).returning(dedup_keys.c.namespace, dedup_keys.c.key_hash)


_OPEN: Final = upsert(dedup_keys, _open_windows)
_FIND: Final = (
    select(dedup_keys.c.run_id, dedup_keys.c.nonce)
    .join_from(
        dedup_keys,
        _seen,
        (dedup_keys.c.namespace == _seen.c.namespace) & (dedup_keys.c.key_hash == _seen.c.key_hash),
    )
    .order_by(dedup_keys.c.namespace)
)
_expired: Final = (
    select(dedup_keys.c.namespace, dedup_keys.c.key_hash)
    .where(dedup_keys.c.expires_at <= select(now()).scalar_subquery())
    .order_by(dedup_keys.c.expires_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
    .cte("expired")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_FORGET: Final = (
    delete(dedup_keys)
    .where(
        select(true())
        .select_from(_expired)
        .where(_expired.c.namespace == dedup_keys.c.namespace, _expired.c.key_hash == dedup_keys.c.key_hash)
        .correlate(dedup_keys)
        .exists(),
        dedup_keys.c.expires_at <= now(),
    )
    .returning(dedup_keys.c.key_hash)
)


def first_sighting(conn: Connection, sightings: Collection[Sighting], run_id: str, *, nonce: str | None = None) -> bool:
    """
    Open a window for each of `sightings`, on behalf of the run that was just made or found.

    Returns: whether all of them were new. If not, the caller rolls back and `seen_run` tells whose they were. A
    concurrent delivery of the same waits here for this transaction. The caller owns the transaction, and after an
    ambiguous commit asks `sighted` with the same `nonce`.
    """
    rows = [
        {
            "namespace": each.namespace,
            "key_hash": each.key_hash,
            "run_id": run_id,
            "nonce": nonce,
            "window_seconds": each.window.total_seconds(),
        }
        for each in sightings
    ]
    opened = conn.execute(_OPEN[conn.dialect.name], {"seen": pack(rows)}).all()
    return len(opened) == len(rows)


def seen_run(conn: Connection, sightings: Collection[Sighting]) -> str | None:
    """The run that an earlier sighting of any of these made, if there is one."""
    rows = [{"namespace": each.namespace, "key_hash": each.key_hash} for each in sightings]
    found: str | None = conn.execute(_FIND, {"seen": pack(rows)}).scalars().first()
    return found


def sighted(conn: Connection, sightings: Collection[Sighting], *, nonce: str) -> bool:
    """Read back: whether the `first_sighting` of this nonce opened a window of these."""
    rows = [{"namespace": each.namespace, "key_hash": each.key_hash} for each in sightings]
    return any(row.nonce == nonce for row in conn.execute(_FIND, {"seen": pack(rows)}))


def forget(conn: Connection, *, limit: int = 1000) -> int:
    """Delete at most `limit` windows that have closed; returns how many went. The caller owns the transaction."""
    return len(conn.execute(_FORGET, {"at_most": limit}).all())
