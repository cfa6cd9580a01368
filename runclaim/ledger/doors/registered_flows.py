"""
registry: what the ledger knows of an application's flows, told by its workers when they start.

A door outside the application enqueues and completes by this and imports nobody's code. The worker that started last
is right: a release registers its flows with its first worker.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, select, true

from runclaim.keys import fingerprint
from runclaim.models import flows
from runclaim.sql.clock import now
from runclaim.sql.rowset import as_json, pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRecord:
    """A phase's name and bounds, durations in seconds."""

    name: str
    queue: str | None
    on: str | None
    max_attempts: int
    max_losses: int
    lease: float
    max_duration: float
    #: first, factor, ceiling, jitter: the arguments of `retries.Backoff`.
    backoff: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRecord:
    """A flow as it was declared. A template is `None` where the application has a function instead, or nothing."""

    name: str
    phases: tuple[PhaseRecord, ...]
    #: JSON Schema of the input (draft 2020-12).
    input: dict[str, Any]
    #: What of the input's type only the application can do: no door without it makes a run of this flow.
    own_code: str | None = None
    key: str | None
    subject: str | None
    has_subject: bool
    #: All fields of the input may hold a secret, or those that are named.
    allow_secrets: bool | tuple[str, ...] = False
    #: Field → patterns of the references to secrets that it may hold.
    secrets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Seconds that a run key is remembered, and after which a queued run is published again.
    keep_keys: float
    dispatch_after: float
    #: `on_complete`, `on_blocked` and `on_failed`, each with the kinds of its actions.
    hooks: dict[str, list[str]] = field(default_factory=dict)
    fail_open: bool = False
    registered_at: datetime | None = field(default=None, compare=False)

    def declared(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return {name: value for name, value in asdict(self).items() if name != "registered_at"}


_told: Final = rowset("told", name=Text(), declared=Text(), fingerprint=Text())


def _register(new: Any) -> Any:
    inserted = new.from_select(
        ["name", "declared", "fingerprint", "registered_at"],
        select(_told.c.name, as_json(_told.c.declared), _told.c.fingerprint, now())
        .where(true())
        # Sorted, so that two workers that start at once do not wait for each other.
        .order_by(_told.c.name),
    )
    excluded = inserted.excluded
    return inserted.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "declared": excluded.declared,
            "fingerprint": excluded.fingerprint,
            "registered_at": excluded.registered_at,
        },
        where=flows.c.fingerprint != excluded.fingerprint,
    ).returning(flows.c.name)


_REGISTER: Final = upsert(flows, _register)
_PRINTS: Final = select(flows.c.name, flows.c.fingerprint)
_ALL: Final = select(flows).order_by(flows.c.name)


def unregistered(conn: Connection, records: Collection[FlowRecord]) -> list[FlowRecord]:
    """Those of `records` that the ledger does not have in this very form. Only reads."""
    known = dict(conn.execute(_PRINTS).all())
    return [each for each in records if known.get(each.name) != _print(each)]


def register(conn: Connection, records: Collection[FlowRecord]) -> list[str]:
    """Keep `records`, each in the place of the one of its name; returns the names of those that were new or changed."""
    if not records:
        return []
    rows = [
        {"name": each.name, "declared": json.dumps(each.declared()), "fingerprint": _print(each)} for each in records
    ]
    return list(conn.execute(_REGISTER[conn.dialect.name], {"told": pack(rows)}).scalars())


def registered(conn: Connection, name: str) -> FlowRecord | None:
    """The flow of that name, or `None` when no application has registered it."""
    row = conn.execute(select(flows).where(flows.c.name == name)).one_or_none()
    return None if row is None else _record(row)


def all_registered(conn: Connection) -> list[FlowRecord]:
    """Every registered flow, by name."""
    return [_record(row) for row in conn.execute(_ALL)]


def _print(record: FlowRecord) -> str:
    return fingerprint(record.declared())


def _record(row: Any) -> FlowRecord:
    told = dict(row.declared)
    # A later release may have written more than this one knows.
    phases = tuple(PhaseRecord(**_known(PhaseRecord, each)) for each in told.pop("phases"))
    return FlowRecord(**_known(FlowRecord, told), phases=phases, registered_at=row.registered_at)


def _known(kind: type[Any], told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name in kind.__dataclass_fields__}
