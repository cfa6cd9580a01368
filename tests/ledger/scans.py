"""What a statement's plan reads, on both databases: pairs of a table and its index."""

from __future__ import annotations

import re


def scans(conn, statement, parameters):
    """What each plan of a statement reads: pairs of a table and its index, `None` for the whole table."""
    if conn.dialect.name == "sqlite":
        return [(0, pair) for pair in sqlite_scans(conn, statement, parameters)]
    custom = conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
    if not parameters:
        return [(0, pair) for pair in postgresql_scans(custom[0]["Plan"])]
    return [(plan, pair) for plan, tree in enumerate([custom, generic(conn, statement, parameters)])
            for pair in postgresql_scans(tree[0]["Plan"])]  # fmt: skip


def sqlite_scans(conn, statement, parameters):
    for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
        found = re.match(r"(SCAN|SEARCH) (runclaim_\w+|earlier)(?: USING (?:COVERING )?INDEX (\w+))?", row.detail)
        if found:
            how, table, index = found.groups()
            table = ALIASES.get(table, table)
            # By the row's number, which is the primary key, or its last.
            index = f"pk_{table}" if how == "SEARCH" and index is None else index
            # A scan of an index reads all of it, however it is ordered.
            yield table, index if how == "SEARCH" or (index or "").startswith("ix_") else None


def generic(conn, statement, parameters):
    """The plan for any parameters, which the server keeps for a prepared statement."""
    conn.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    types = ", ".join("double precision" if isinstance(value, float) else "unknown" for value in parameters)
    conn.connection.dbapi_connection.execute(f"PREPARE asked ({types}) AS {statement}".encode())
    values = ", ".join(literal(value) for value in parameters)
    plan = conn.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE asked({values})").scalar_one()
    conn.exec_driver_sql("DEALLOCATE asked")
    return plan


def literal(value):
    quoted = str(value).replace("'", "''")
    return "NULL" if value is None else str(value) if isinstance(value, int | float) else f"'{quoted}'"


def postgresql_scans(node):
    if "Scan" in node["Node Type"] and node.get("Relation Name", "").startswith("runclaim_"):
        for index in bitmap_indexes(node) or [node.get("Index Name")]:
            yield node["Relation Name"], index
    for child in node.get("Plans", []):
        yield from postgresql_scans(child)


def bitmap_indexes(node):
    """The indexes that a bitmap is made of: one, or several that are put together."""
    found = []
    for child in node.get("Plans", []):
        if child["Node Type"].startswith("Bitmap"):
            found += [child["Index Name"]] if "Index Name" in child else bitmap_indexes(child)
    return found


#: What a statement calls a table that it reads twice.
ALIASES = {"earlier": "runclaim_untold"}
