"""The window of schemas: a release works on the tables of a later one that fit it, and refuses those that do not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runclaim import migrations
from runclaim.database import Database
from runclaim.errors import SchemaAhead, SchemaBehind

LATER = "9999"


@pytest.fixture
def database(ledger_url):
    made = Database(ledger_url, patience=timedelta(seconds=20))
    yield made
    made.close()


def upgrade_by_a_later_release(database, *, runs_with):
    """What its last script leaves behind, as far as this release looks."""
    with database.begin() as conn:
        conn.exec_driver_sql(
            f"CREATE TABLE IF NOT EXISTS {migrations.SCHEMA_TABLE}"
            " (revision text PRIMARY KEY, runs_with text NOT NULL, applied_at bigint)"
        )
        clock = "now()" if conn.dialect.name == "postgresql" and migrations.HEAD > "0007" else "0"
        conn.exec_driver_sql(
            f"INSERT INTO {migrations.SCHEMA_TABLE} (revision, runs_with, applied_at)"
            f" VALUES ('{LATER}', '{runs_with}', {clock})"
        )
        conn.exec_driver_sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '{LATER}'")


def test_tables_of_a_later_release_that_fit_are_worked_on_and_left_as_they_are(database):
    """
    INVARIANT: rolling code back after an upgrade needs no downgrade of the tables.

    Breaks if any newer revision is refused, or an older release's upgrade touches it.
    """
    upgrade_by_a_later_release(database, runs_with=migrations.HEAD)

    migrations.require_current(database)
    assert (LATER, LATER) == migrations.upgrade(database)


@pytest.mark.parametrize("runs_with", ["9998", LATER])
def test_tables_of_a_later_release_that_do_not_fit_are_refused(database, runs_with):
    upgrade_by_a_later_release(database, runs_with=runs_with)

    for use in (migrations.require_current, migrations.upgrade):
        with pytest.raises(SchemaAhead, match="install the release that upgraded the ledger") as refused:
            use(database)
        assert (LATER, migrations.HEAD) == (refused.value.found, refused.value.wanted)
    assert LATER == migrations.current(database)


def test_tables_of_a_later_release_that_say_nothing_are_refused(database):
    with database.begin() as conn:
        conn.exec_driver_sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '{LATER}'")

    with pytest.raises(SchemaAhead):
        migrations.require_current(database)


def test_tables_that_are_too_old_are_refused(database):
    with database.begin() as conn:
        conn.exec_driver_sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0000'")

    with pytest.raises(SchemaBehind, match="run: runclaim db upgrade"):
        migrations.require_current(database)
