"""
How the database answers the statements of each verb, shortened to what matters.

PostgreSQL plans a prepared statement once for any values, and keeps that plan unless those for the values at hand
promise to be better; where the two differ, both are shown.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection

    from benchmarks.growth_live import Ledger
    from benchmarks.growth_verbs import Verb

_BELOW: Final = "  "
_ROWS: Final = re.compile(r", [\d,]+ rows")


def plans(ledger: Ledger, verbs: Iterable[Verb]) -> dict[str, list[str]]:
    """Verb → the plan of each of its statements; what the verb does is rolled back."""
    found = {}
    for verb in verbs:
        with ledger.database.engine.connect() as conn:
            given = verb.prepare(conn, ledger)
            sent = _statements(conn, ledger, verb, given)
            found[verb.name] = [_plan(conn, statement, parameters) for statement, parameters in sent]
            conn.rollback()
    return found


def _statements(conn: Connection, ledger: Ledger, verb: Verb, given: object) -> list[tuple[str, Any]]:
    sent: dict[str, Any] = {}

    def note(_conn: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        sent.setdefault(statement, parameters)

    event.listen(conn, "before_cursor_execute", note)
    verb.act(conn, ledger, given)
    event.remove(conn, "before_cursor_execute", note)
    return list(sent.items())


def _plan(conn: Connection, statement: str, parameters: Any) -> str:
    if conn.dialect.name == "sqlite":
        rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return "\n".join(row.detail for row in rows if "runclaim_" in row.detail)
    if not parameters:
        return _shown(conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}").scalar_one())
    custom = _shown(conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one())
    generic = _shown(_generic(conn, statement, parameters))
    if _ROWS.sub("", custom) == _ROWS.sub("", generic):
        return generic
    return f"for any values\n{generic}\nfor the values at hand\n{custom}"


def _shown(tree: Any) -> str:
    return "\n".join(_nodes(tree[0]["Plan"], 1))


def _generic(conn: Connection, statement: str, parameters: Any) -> Any:
    """The plan that the server keeps for a prepared statement; it depends on no value."""
    types = ", ".join("double precision" if isinstance(value, float) else "unknown" for value in parameters)
    raw: Any = conn.connection.dbapi_connection
    conn.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    raw.execute(f"PREPARE growth ({types}) AS {statement}".encode())
    nulls = ", ".join("NULL" for _ in parameters)
    tree = conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE growth({nulls})").scalar_one()
    raw.execute(b"DEALLOCATE growth")
    return tree


def _nodes(node: dict[str, Any], depth: int) -> Iterator[str]:
    """Those that touch a table, or put rows in an order; their rows are the planner's guess."""
    kind, table = node["Node Type"], node.get("Relation Name")
    shown = table is not None or kind in {"Sort", "Incremental Sort", "Bitmap Index Scan"}
    if shown:
        how = f"{node['Operation']} on" if kind == "ModifyTable" else kind if table is None else f"{kind} of"
        index = f" by {node['Index Name']}" if "Index Name" in node else ""
        yield f"{_BELOW * depth}{how}{f' {table}' if table else ''}{index}, {node['Plan Rows']:,} rows"
    for child in node.get("Plans", ()):
        yield from _nodes(child, depth + shown)
