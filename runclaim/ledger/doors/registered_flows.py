"""
registered_flows: what the ledger knows of an application's flows, told by its workers when they start.

A door outside the application enqueues and completes by this and imports no application code. The worker that started
last is right: a release registers its flows with its first worker.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, select, true

from runclaim.keys import fingerprint
from runclaim.models import flows
from runclaim.sql.clock import now
from runclaim.sql.rowset import as_json, pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


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


def unregistered(conn: Connection, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `declared` (name → description) that the ledger does not have in this very form. Only reads."""
    known = dict(conn.execute(_PRINTS).all())
    return {name: each for name, each in declared.items() if known.get(name) != fingerprint(each)}


def register(conn: Connection, declared: Mapping[str, Any]) -> list[str]:
    """Keep descriptions, each in the place of the one of its name; returns the names that were new or changed."""
    if not declared:
        return []
    rows = [
        {"name": name, "declared": json.dumps(each), "fingerprint": fingerprint(each)}
        for name, each in declared.items()
    ]
    return list(conn.execute(_REGISTER[conn.dialect.name], {"told": pack(rows)}).scalars())


def registered(conn: Connection, name: str) -> dict[str, Any] | None:
    """The description of the flow of that name, or `None` when no application has registered it."""
    row = conn.execute(select(flows).where(flows.c.name == name)).one_or_none()
    return None if row is None else row.declared


def all_registered(conn: Connection) -> dict[str, dict[str, Any]]:
    """Every registered flow: its name and its description, sorted by name."""
    return {row.name: row.declared for row in conn.execute(_ALL)}
