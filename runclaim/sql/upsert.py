"""An insert that says what to do where its row is there already: one definition, a statement for each database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Insert, Table


def upsert(table: Table, build: Callable[[Any], Insert]) -> dict[str, Insert]:
    """
    The statement of each database, by the name of its dialect.

    `build` makes it of an empty insert into `table`: `from_select` or `values`, then `on_conflict_do_nothing` or
    `on_conflict_do_update`, which the inserts of both dialects spell the same way.
    """
    return {"postgresql": build(postgresql.insert(table)), "sqlite": build(sqlite.insert(table))}
