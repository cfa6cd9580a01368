"""Two releases on one database: each works on the tables of a later one that fit it, and refuses those that do not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlalchemy import inspect

from runclaim import SchemaAhead, SchemaBehind, cli, migrations
from runclaim.api.__main__ import require_safe
from runclaim.config import Config
from runclaim.errors import ConfigError
from runclaim.migrations import scripts
from runclaim.migrations.revisions import OURS
from tests.api.served import Served
from tests.harness.command_line import runner
from tests.migrations.later_release import ADD_COLUMN, next_to, with_script

HEAD = migrations.HEAD
LATER = next_to(HEAD)


@pytest.fixture
def database(ledger_database):
    """A ledger of this release."""
    return ledger_database


@pytest.fixture
def ahead(database, tmp_path):
    """The same after a later release, on whose tables this one works, has upgraded it."""
    migrations.upgrade(database, with_script(tmp_path, ADD_COLUMN))
    return database


@pytest.fixture
def beyond(database, tmp_path):
    """The same after a later release, on whose tables this one cannot work, has upgraded it."""
    drop = 'op.drop_column("runclaim_runs", "trace_context")'
    migrations.upgrade(database, with_script(tmp_path, drop, runs_with=LATER))
    return database


def command(database, *words):
    url = database.url.render_as_string(hide_password=False)
    environment = {"RUNCLAIM_DATABASE_URL": url, "RUNCLAIM_API_URL": None, "RUNCLAIM_APP": None}
    return runner().invoke(cli.command, words, env=environment, prog_name="runclaim")


def rows(database):
    with database.read() as conn:
        found = conn.exec_driver_sql("SELECT revision, runs_with FROM runclaim_schema ORDER BY revision")
        return [tuple(row) for row in found]


def columns(database):
    with database.read() as conn:
        return {column["name"] for column in inspect(conn).get_columns("runclaim_runs")}


def test_an_upgrade_writes_which_releases_work_on_what_each_script_leaves(ahead):
    with ahead.read() as conn:
        moments = conn.exec_driver_sql("SELECT applied_at FROM runclaim_schema").scalars().all()

    assert (LATER, HEAD) == rows(ahead)[-1]
    assert None not in moments


def test_tables_of_a_later_release_that_fit_are_worked_on_and_left_as_they_are(ahead):
    """
    INVARIANT: rolling code back after an upgrade needs no downgrade of the tables.

    Breaks if any newer revision is refused, or an older release's upgrade touches it.
    """
    before = rows(ahead)
    migrations.require_current(ahead)

    assert (LATER, LATER) == migrations.upgrade(ahead)
    assert before == rows(ahead)
    assert "colour" in columns(ahead)


def test_the_commands_of_an_older_release_say_that_it_works_on_newer_tables(ahead):
    upgraded, checked = command(ahead, "db", "upgrade", "--json"), command(ahead, "db", "check")
    listed = command(ahead, "runs", "list")

    assert (0, {"before": LATER, "after": LATER}) == (upgraded.exit_code, json.loads(upgraded.stdout))
    assert (
        f"schema {LATER}, newer than this release's {HEAD}, which works on it; nothing was changed" in upgraded.stderr
    )
    assert (0, True) == (checked.exit_code, "which finds all that it needs" in checked.stderr)
    assert 0 == listed.exit_code


def test_a_check_of_newer_tables_still_sees_what_this_release_misses(ahead):
    with ahead.begin() as conn:
        conn.exec_driver_sql("DROP INDEX ix_runclaim_runs_live")
    checked = command(ahead, "db", "check")

    assert 1 == checked.exit_code
    assert ["runclaim_runs, index ix_runclaim_runs_live: is missing"] == [
        line.split(", must be ")[0] for line in checked.stdout.splitlines()
    ]


def test_tables_of_a_later_release_that_do_not_fit_are_refused(beyond):
    for use in (migrations.require_current, migrations.upgrade):
        with pytest.raises(SchemaAhead, match="Upgrade this program: install the release that upgraded") as refused:
            use(beyond)
        assert (LATER, HEAD, LATER) == (refused.value.found, refused.value.wanted, refused.value.needed)
    assert LATER == migrations.current(beyond)


@pytest.mark.parametrize(
    "words", [("db", "upgrade"), ("db", "check"), ("runs", "list"), ("token", "list")], ids=" ".join
)
def test_each_command_of_a_release_that_is_too_old_says_what_to_do_in_one_line(beyond, words):
    refused = command(beyond, *words)

    assert 1 == refused.exit_code
    assert 1 == len(refused.stderr.splitlines())
    assert f"is at revision {LATER}, newer than this program's {HEAD}" in refused.stderr
    assert "db upgrade" not in refused.stderr


def test_one_script_in_between_that_does_not_fit_is_enough(database, tmp_path):
    """Breaks if only the newest script is asked: what an earlier one dropped is still gone."""
    dropped = with_script(tmp_path, 'op.drop_column("runclaim_runs", "trace_context")', runs_with=LATER)
    migrations.upgrade(database, with_script(tmp_path, ADD_COLUMN, after=dropped, runs_with=HEAD))

    with pytest.raises(SchemaAhead):
        migrations.require_current(database)


@pytest.mark.parametrize("statement", ["DROP TABLE runclaim_schema", "DELETE FROM runclaim_schema"])
def test_newer_tables_that_do_not_say_what_fits_them_are_refused(ahead, statement):
    with ahead.begin() as conn:
        conn.exec_driver_sql(statement)

    with pytest.raises(SchemaAhead, match=f"it needs {LATER}. Nothing was changed"):
        migrations.require_current(ahead)


def test_a_release_works_on_older_tables_back_to_its_oldest(database, tmp_path):
    later = with_script(tmp_path, ADD_COLUMN)
    migrations.require_current(database, schema=later)

    with pytest.raises(SchemaBehind, match=f"is at revision {HEAD}, but this release needs {LATER}.*db upgrade$"):
        migrations.require_current(database, schema=replace(later, oldest=LATER))
    assert HEAD == migrations.current(database)


def test_a_revision_that_no_release_made_is_refused_in_words(database):
    with database.begin() as conn:
        conn.exec_driver_sql(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '0000'")

    with pytest.raises(SchemaBehind):
        migrations.require_current(database)
    with pytest.raises(ConfigError, match="0000 is not one of the revisions of runclaim"):
        migrations.upgrade(database)


def test_an_api_of_an_older_release_is_ready_on_tables_that_fit_it(ahead):
    with Served(Config(database_url=ahead.url.render_as_string(hide_password=False))) as served:
        ready = served.client().get("/readyz")

    assert 200 == ready.status


def test_an_api_of_a_release_that_is_too_old_does_not_start_and_one_that_runs_is_not_ready(beyond):
    with Served(Config(database_url=beyond.url.render_as_string(hide_password=False))) as served:
        ready = served.client().get("/readyz")
        with pytest.raises(SchemaAhead):
            require_safe(served.server, "127.0.0.1")

    assert 503 == ready.status
    assert f"at revision {LATER}, this release needs {HEAD}" == ready.json["checks"]["ledger"]


def test_scripts_say_what_runs_on_their_tables_and_none_takes_back_what_an_earlier_one_said():
    said = [(script.revision, script.module.runs_with) for script in scripts.between(OURS, "0007", HEAD)]

    assert sorted(oldest for _, oldest in said) == [oldest for _, oldest in said]
    assert all(oldest <= revision for revision, oldest in said)
    assert OURS.oldest <= HEAD
