"""`db sql`: what it prints, applied as a DBA does, makes the tables that this release needs."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from dataclasses import replace

import pytest

from runclaim import cli, migrations
from runclaim.errors import ConfigError
from runclaim.migrations import ddl, scripts
from runclaim.migrations.revisions import OURS
from runclaim.sql import ledger_file
from tests.harness.command_line import runner
from tests.migrations.later_release import ADD_COLUMN, ADD_INDEX, with_script
from tests.servers.postgres import find

HEAD = migrations.HEAD


def command(*words, url):
    environment = {"RUNCLAIM_DATABASE_URL": url, "RUNCLAIM_API_URL": None, "RUNCLAIM_APP": None}
    return runner().invoke(cli.command, words, env=environment, prog_name="runclaim")


def apply(database, text):
    """By psql, or as sqlite3 does."""
    if database.file is not None:
        ledger_file.make(database.file)
        with sqlite3.connect(database.file, isolation_level=None) as conn:
            conn.executescript(text)
        conn.close()
        return
    url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
    psql = [find()[0] / "psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url]
    done = subprocess.run(psql, input=text, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


def rows(database):
    with database.read() as conn:
        found = conn.exec_driver_sql("SELECT revision, runs_with FROM runclaim_schema ORDER BY revision")
        return [tuple(row) for row in found]


def url_of(database):
    return database.url.render_as_string(hide_password=False)


def test_what_it_prints_makes_an_empty_database_the_one_that_an_upgrade_makes(empty_database):
    printed = command("db", "sql", url=url_of(empty_database))
    apply(empty_database, printed.stdout)
    checked = command("db", "check", url=url_of(empty_database))
    expected = [(script.revision, script.module.runs_with) for script in scripts.between(OURS, "0007", HEAD)]

    assert (0, 0) == (printed.exit_code, checked.exit_code), checked.output
    assert expected == rows(empty_database)
    assert (HEAD, HEAD) == migrations.upgrade(empty_database)


def test_what_it_prints_from_a_revision_on_upgrades_tables_in_use(empty_database):
    migrations.upgrade(empty_database, replace(OURS, head="0007"))
    dialect = empty_database.engine.dialect.name
    apply(empty_database, ddl.statements(dialect, "0007"))

    assert HEAD == migrations.current(empty_database)
    assert [] == migrations.differences(empty_database)


def test_it_stops_at_the_given_revision(empty_database):
    apply(empty_database, ddl.statements(empty_database.engine.dialect.name, end="0006"))

    assert "0006" == migrations.current(empty_database)


def test_indexes_of_tables_in_use_are_printed_outside_a_transaction_and_can_be_made_again(ledger_postgres, tmp_path):
    later = with_script(tmp_path, ADD_INDEX, concurrently=True)
    text = ddl.statements("postgresql", HEAD, schema=later)
    apart, _, stamp = text.partition("BEGIN;")
    apply(ledger_postgres, apart)
    apply(ledger_postgres, text)

    assert "DROP INDEX CONCURRENTLY IF EXISTS ix_later;" in apart
    assert "CREATE INDEX CONCURRENTLY ix_later ON runclaim_runs (worker) WHERE worker IS NOT NULL;" in apart
    assert "ix_later" not in stamp
    assert (later.head, later.head) == migrations.upgrade(ledger_postgres, later)


def test_each_script_of_tables_in_use_has_a_transaction_of_its_own(tmp_path):
    first = with_script(tmp_path, ADD_COLUMN)
    second = with_script(tmp_path, 'op.create_table("runclaim_later", sa.Column("id", sa.Text()))', after=first)

    assert 2 == ddl.statements("postgresql", HEAD, schema=second).count("\nCOMMIT;")
    assert 1 == ddl.statements("sqlite", HEAD, schema=second).count("\nCOMMIT;")
    assert 1 == ddl.statements("postgresql", schema=second).count("\nCOMMIT;")


def test_it_connects_to_nothing_and_takes_the_dialect_from_the_url():
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    printed = command("db", "sql", url=nowhere)
    other = command("db", "sql", "--dialect", "sqlite", "--from", "0007", "--json", url=nowhere)

    assert "TIMESTAMP WITH TIME ZONE" in printed.stdout
    assert "clock_timestamp" in printed.stdout
    assert ("sqlite", "0007", HEAD) == tuple(json.loads(other.stdout)[name] for name in ("dialect", "from", "to"))
    assert "TIMESTAMP" not in other.stdout


def test_tables_that_are_there_already_need_nothing():
    printed = command("db", "sql", "--from", HEAD, url="sqlite:///x.db")

    assert (0, "") == (printed.exit_code, printed.stdout)
    assert f"the tables are at {HEAD} already; there is nothing to do\n" == printed.stderr


@pytest.mark.parametrize(
    "start, end, words",
    [
        ("0006", "0002", "there is no way back from 0006 to 0002"),
        ("000", None, "000 is not one of the revisions of runclaim"),
        (None, "8", "8 is not one of the revisions of runclaim"),
    ],
)
def test_a_way_that_no_script_leads_is_refused(start, end, words):
    with pytest.raises(ConfigError, match=words):
        ddl.statements("sqlite", start, end)
