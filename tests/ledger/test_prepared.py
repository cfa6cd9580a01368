"""Prepared statements: a few runs and many have the same done to them, with few texts for the server to keep."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text

from runclaim.database import Database
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue_at_once
from runclaim.sql.prepared import Prepared
from tests.ledger.factories import claimed_runs, completion, new_run, take, wanted

JOURNAL = text("SELECT type, phase, attempt, fence, data FROM runclaim_events WHERE run_id = :id ORDER BY id")
WITH_FENCE = text("UPDATE runclaim_runs SET fence = :fence WHERE id = :id")
RESULTS = text("SELECT phase, position, result, fence, attempts FROM runclaim_phase_results WHERE run_id = :id")


def told(conn, claims):
    """What the ledger has of each run, without what is its own."""
    return [
        [tuple(row) for query in (JOURNAL, RESULTS) for row in conn.execute(query, {"id": each.run_id})]
        for each in claims
    ]


@pytest.mark.parametrize("many", [1, 2, 3, 4, 9])
def test_few_and_many_runs_have_the_same_done_to_them(conn, many):
    """Breaks if the rows that are written out as parameters are not those that come as JSON."""
    together, alone = claimed_runs(conn, many), claimed_runs(conn, 1)
    moved = complete(conn, [completion(each, inline=True) for each in together])
    complete(conn, [completion(alone[0], inline=True)])

    assert {run_id: found.state for run_id, found in moved.items()} == {each.run_id: "running" for each in together}
    assert told(conn, together) == told(conn, alone) * many


@pytest.mark.postgres
def test_numbers_of_every_size_share_one_prepared_statement(postgres):
    """
    INVARIANT: a kept connection prepares each text once.

    Breaks if numbers are sent as numbers: the driver gives each size a type of its own, and PostgreSQL a statement.
    """
    fresh = Database(postgres.url.render_as_string(hide_password=False), patience=timedelta(seconds=5))
    with fresh.engine.connect() as conn, conn.begin() as transaction:
        raw = conn.connection.driver_connection
        raw.prepare_threshold = 0
        for fence in (1, 70_000, 5_000_000_000):
            (claim,) = claimed_runs(conn, 1)
            conn.execute(WITH_FENCE, {"fence": fence, "id": claim.run_id})
            assert take(conn, wanted(conn, claim.run_id)) is None
        kept = [text for (text,) in raw.execute(b"SELECT statement FROM pg_prepared_statements").fetchall()]
        transaction.rollback()
    fresh.close()

    assert 1 == len([text for text in kept if "locked_asked" in text])


@pytest.mark.postgres
def test_an_applications_own_connection_is_given_what_sqlalchemy_makes(postgres):
    """Its driver may have other marks for parameters, and other types."""
    engine = create_engine(postgres.url)
    with engine.connect() as conn:
        assert enqueue_at_once(conn, [new_run("own")])
        assert not enqueue_at_once(conn, [new_run("own")])
    engine.dispose()


def test_a_statement_without_rows_is_given_its_parameters(database):
    with database.read() as conn:
        found = Prepared(text("SELECT CAST(:given AS INTEGER) + 1")).execute(conn, {}, {"given": 41})

        assert 42 == found.scalar_one()
