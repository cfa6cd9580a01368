"""What the tables hold, read directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event, func, select

from runclaim.models import metadata, runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection


def count(conn: Connection, table: str) -> int:
    """How many rows the table runclaim_`table` has."""
    found: int = conn.execute(select(func.count()).select_from(metadata.tables[f"runclaim_{table}"])).scalar_one()
    return found


def column(conn: Connection, run_id: str, name: str) -> Any:
    """One column of a run's row."""
    return conn.execute(select(runs.c[name]).where(runs.c.id == run_id)).scalar_one()


def row(conn: Connection, run_id: str) -> dict[str, Any]:
    """A run's whole row."""
    return dict(conn.execute(select(runs).where(runs.c.id == run_id)).mappings().one())


def statements_of(
    conn: Connection, verb: Callable[[Connection], object], *, plain: bool = False
) -> list[tuple[str, Any]]:
    """The statements, with their parameters, that `verb(conn)` sends; `plain` says that some have none."""
    sent = []

    def note(_conn: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        # A test's own have no parameters.
        if parameters or plain:
            sent.append((statement, parameters))

    event.listen(conn, "before_cursor_execute", note)
    verb(conn)
    event.remove(conn, "before_cursor_execute", note)
    return sent
