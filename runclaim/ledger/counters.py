"""Counters: totals that no purge lowers, added to outside of every run's transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Text, select, true
from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite

from runclaim.models import counters
from runclaim.rowset import pack, rowset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

_added: Final = rowset("added", name=Text(), flow=Text(), many=BigInteger())


def _add(upsert: Any) -> Any:
    made = upsert(counters).from_select(
        ["name", "flow", "value"],
        select(_added.c.name, _added.c.flow, _added.c.many).where(true()).order_by(_added.c.name, _added.c.flow),
    )
    return made.on_conflict_do_update(
        index_elements=["name", "flow"], set_={"value": counters.c.value + made.excluded.value}
    )


_ADD: Final = {"postgresql": _add(insert_on_postgresql), "sqlite": _add(insert_on_sqlite)}


def add(conn: Connection, amounts: Mapping[tuple[str, str], int]) -> None:
    """Add to the totals of `(name, flow)`. The caller owns the transaction."""
    rows = [{"name": name, "flow": flow, "many": many} for (name, flow), many in amounts.items()]
    conn.execute(_ADD[conn.dialect.name], {"added": pack(rows)})


def totals(conn: Connection) -> dict[tuple[str, str], int]:
    """Every total by `(name, flow)`."""
    return {(name, flow): value for name, flow, value in conn.execute(select(counters))}
