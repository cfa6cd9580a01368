"""What a script locks on PostgreSQL, and who is in the way of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_CREATED: Final = re.compile(r"^CREATE TABLE (\w+)", re.MULTILINE)
_FOR_ALL: Final = re.compile(r"^(?:ALTER|DROP) TABLE (?:IF EXISTS )?(\w+)", re.MULTILINE)
_FOR_WRITERS: Final = re.compile(
    r"^CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)\w+ ON (\w+)|\bREFERENCES (\w+)", re.MULTILINE
)
#: An index that is dropped is locked with its table, which the statement does not name.
_DROPPED: Final = re.compile(r"^DROP INDEX (?!CONCURRENTLY)(\w+)", re.MULTILINE)
#: The ledger's verbs lock them in this order, and all others after them.
_ORDER: Final = ("runclaim_run_keys", "runclaim_subjects", "runclaim_runs")
#: At most so many sessions are named.
_MOST: Final = 3
_IN_THE_WAY: Final = text(
    "SELECT act.pid, act.usename, act.application_name, act.state,"
    " EXTRACT(EPOCH FROM clock_timestamp() - act.xact_start) AS seconds FROM pg_stat_activity AS act"
    " WHERE act.pid <> pg_backend_pid() AND act.datname = current_database() AND act.xact_start IS NOT NULL"
    " AND ((:snapshots AND act.backend_xmin IS NOT NULL) OR EXISTS ("
    "SELECT FROM pg_locks AS held WHERE held.pid = act.pid AND held.granted"
    " AND held.relation IN (SELECT to_regclass(named) FROM unnest(CAST(:relations AS TEXT[])) AS named)))"
    " ORDER BY act.xact_start LIMIT :most"
)


@dataclass(frozen=True, slots=True)
class Locks:
    """The tables that statements lock for a moment: those that no one can use meanwhile, and that no one can change."""

    for_all: tuple[str, ...]
    for_writers: tuple[str, ...]
    #: Dropped indexes; who reads the table holds them, too.
    indexes: tuple[str, ...] = ()

    @property
    def relations(self) -> list[str]:
        """All that is locked, by name."""
        return [*self.for_all, *self.for_writers, *self.indexes]

    def __str__(self) -> str:
        parts = []
        if for_all := [*self.for_all, *(f"the table of {index}" for index in self.indexes)]:
            parts.append(f"locks {', '.join(for_all)}: readers and writers wait")
        if self.for_writers:
            parts.append(f"locks {', '.join(self.for_writers)}: writers wait")
        return "; ".join(parts) or "locks no table that is in use"


def of(statements: str) -> Locks:
    """What these statements lock of the tables that were there before."""
    created = set(_CREATED.findall(statements))
    for_all = set(_FOR_ALL.findall(statements)) - created
    named = {indexed or referred for indexed, referred in _FOR_WRITERS.findall(statements)}
    dropped = sorted(set(_DROPPED.findall(statements)))
    return Locks(tuple(sorted(for_all)), tuple(sorted(named - created - for_all)), tuple(dropped))


def take(conn: Connection, wanted: Locks, seconds: float) -> None:
    """
    Take them all within `seconds`, in the ledger's order; then statements of this transaction take any time.

    One after the other, as the script comes to them, they would be waited for several times, while the first are held.
    """
    conn.exec_driver_sql(f"SET LOCAL lock_timeout TO {round(seconds * 1000)}")
    conn.exec_driver_sql(f"SET LOCAL statement_timeout TO {round(seconds * 1000)}")
    for tables, mode in ((wanted.for_all, "ACCESS EXCLUSIVE"), (wanted.for_writers, "SHARE ROW EXCLUSIVE")):
        if tables:
            conn.exec_driver_sql(f"LOCK TABLE {', '.join(sorted(tables, key=_place))} IN {mode} MODE")
    conn.exec_driver_sql("SET LOCAL statement_timeout TO 0")


def _place(table: str) -> tuple[int, str]:
    return (_ORDER.index(table) if table in _ORDER else len(_ORDER), table)


def in_the_way(conn: Connection, relations: Sequence[str], *, snapshots: bool = False) -> str:
    """
    The sessions whose open transaction uses these tables and indexes, the oldest first, in words; empty without any.

    `snapshots` adds those that still see an older state of any table: what is made CONCURRENTLY waits for them.
    """
    asked = {"relations": list(relations), "snapshots": snapshots, "most": _MOST}
    return ", ".join(
        f"session {row.pid} ({row.state or 'of another role'} for {row.seconds:.0f} s,"
        f" user {row.usename}, application {row.application_name or 'without a name'})"
        for row in conn.execute(_IN_THE_WAY, asked)
    )
