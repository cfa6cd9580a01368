"""Counters: totals that no purge lowers, added to outside of every run's transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Text, literal_column, select, text, true

from runclaim.errors import LedgerUnavailable
from runclaim.models import counters
from runclaim.sql.rowset import pack, rowset
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

_added: Final = rowset("added", name=Text(), flow=Text(), many=BigInteger())


def _add_to(new: Any) -> Any:
    inserted = new.from_select(
        ["name", "flow", "value"],
        select(_added.c.name, _added.c.flow, _added.c.many).where(true()).order_by(_added.c.name, _added.c.flow),
    )
    return inserted.on_conflict_do_update(
        index_elements=["name", "flow"], set_={"value": counters.c.value + inserted.excluded.value}
    )


_add: Final = upsert(counters, _add_to)
#: PostgreSQL says in which transaction, so that a commit without an answer can be read back.
_ADD: Final = _add | {"postgresql": _add["postgresql"].returning(literal_column("CAST(pg_current_xact_id() AS TEXT)"))}
_COMMITTED: Final = text("SELECT pg_xact_status(CAST(CAST(:number AS TEXT) AS xid8))")


def add(conn: Connection, amounts: Mapping[tuple[str, str], int]) -> list[str]:
    """
    Add to the totals of `(name, flow)`. The caller owns the transaction.

    Returns: on PostgreSQL the transaction's number, for `committed`; nothing on SQLite, whose commits always answer.
    """
    rows = [{"name": name, "flow": flow, "many": many} for (name, flow), many in amounts.items()]
    found = conn.execute(_ADD[conn.dialect.name], {"added": pack(rows)})
    return list(found.scalars())[:1] if found.returns_rows else []


def committed(conn: Connection, number: str) -> bool:
    """
    Read back: whether the transaction of that number was committed.

    One that the database has forgotten counts as committed: no total is added twice. Raises: LedgerUnavailable while
    it is under way.
    """
    status = conn.execute(_COMMITTED, {"number": number}).scalar()
    if status == "in progress":
        raise LedgerUnavailable("a transaction that adds to the totals is still open; try again")
    return status != "aborted"


def totals(conn: Connection) -> dict[tuple[str, str], int]:
    """Every total by `(name, flow)`."""
    return {(name, flow): value for name, flow, value in conn.execute(select(counters))}
