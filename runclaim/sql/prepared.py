"""
The statements of each run's way, executed without SQLAlchemy's work around them.

SQLAlchemy compiles them, once for each shape of their parameters; its engine keeps the connections and tells errors
and events apart. What else it does for each execution (the cache's key, the types of parameters and results) costs
about a third of such a statement, and is left out. PostgreSQL is given a few rows as plain parameters, which it reads
in half the time of JSON, and more as JSON, so that a kept connection prepares few texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runclaim.sql.engines import OURS
from runclaim.sql.rowset import cell_of, pack

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection, CursorResult, Executable

    Row = Mapping[str, Any]
    #: How a parameter's value is found: in a row of a rowset, or by its name.
    Place = tuple[str, int, str] | str

#: How many rows of one rowset are written out as plain parameters.
_FEW: Final = 3
_AS_JSON: Final = 0


class Prepared:
    """
    One statement. A rowset's value is its rows, any other parameter's a plain one.

    Results come as the driver has them: `uuid` as text, `jsonb` as Python has it, instants in the session's zone.
    """

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._texts: dict[tuple[tuple[str, int], ...], tuple[str, list[Place], dict[str, Any]]] = {}

    def execute(
        self, conn: Connection, rowsets: Mapping[str, Sequence[Row]], values: Mapping[str, Any] | None = None
    ) -> CursorResult[Any]:
        """Execute it; one round trip."""
        plain = values or {}
        if not conn.get_execution_options().get(OURS):
            return conn.execute(self._statement, {name: pack(rows) for name, rows in rowsets.items()} | dict(plain))
        shape = tuple(
            (name, len(rows) if 0 < len(rows) <= _FEW else _AS_JSON) for name, rows in sorted(rowsets.items())
        )
        text, places, constants = self._texts.get(shape) or self._compile(conn, shape)
        packed = {name: pack(rowsets[name]) for name, many in shape if many == _AS_JSON}
        return conn.exec_driver_sql(text, tuple(_in_order(places, rowsets, {**constants, **packed, **plain})))

    def _compile(self, conn: Connection, shape: tuple[tuple[str, int], ...]) -> tuple[str, list[Place], dict[str, Any]]:
        few = {name: many for name, many in shape if many != _AS_JSON}
        compiled: Any = self._statement.compile(dialect=conn.dialect, compile_kwargs={"few": few})  # type: ignore[attr-defined]
        places: list[Place] = [cell_of(name) or name for name in compiled.positiontup]
        constants = {name: value for name, value in compiled.params.items() if cell_of(name) is None}
        found = self._texts[shape] = str(compiled), places, constants
        return found


def _in_order(places: Iterable[Place], rowsets: Mapping[str, Sequence[Row]], plain: Mapping[str, Any]) -> Iterable[Any]:
    # As text, which PostgreSQL reads by the type that the statement casts it to: a number would be sent by its size,
    # and each size would be one more prepared statement.
    for place in places:
        if isinstance(place, str):
            value = plain[place]
        else:
            name, row, column = place
            value = rowsets[name][row].get(column)
        yield value if value is None else str(value)
