"""Sizes: what a client makes grow is seen growing."""

from __future__ import annotations

from runclaim.ledger.doors.sizes import sizes
from runclaim.models.base import Base
from tests.ledger.factories import queued_run


def test_every_table_has_a_size_and_grows_with_its_rows(conn):
    """
    INVARIANT: no table grows unseen.

    Breaks if a new table is not among those that are looked at.
    """
    for number in range(3):
        queued_run(conn, key=f"k{number}")
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("ANALYZE runclaim_runs")
    found = {each.table: each for each in sizes(conn)}

    assert set(Base.metadata.tables) == set(found)
    assert 3 == found["runclaim_runs"].rows
    assert (conn.dialect.name == "postgresql") == (found["runclaim_runs"].bytes > 0)
