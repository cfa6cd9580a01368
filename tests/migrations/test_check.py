"""`db check` ends with 1 for tables that are defined otherwise, on both databases, and says what differs."""

from __future__ import annotations

import json

import pytest

from runclaim import cli
from tests.harness.command_line import runner

INDEX = "CREATE INDEX ix_runclaim_runs_live ON runclaim_runs (enqueued_at, id, project) WHERE finished_at IS"
CHECK = ", \n\tCONSTRAINT ck_runclaim_runs_pending_actions_not_negative CHECK (pending_actions >= 0)"
#: What was changed → the statements on PostgreSQL; the table, what is written there and in its place on SQLite.
CHANGES = {
    "runclaim_runs, index ix_runclaim_runs_live": (
        ("DROP INDEX ix_runclaim_runs_live", f"{INDEX} NOT NULL"),
        ("ix_runclaim_runs_live", "IS NULL", "IS NOT NULL"),
    ),
    "runclaim_runs, constraint ck_runclaim_runs_pending_actions_not_negative": (
        ("ALTER TABLE runclaim_runs DROP CONSTRAINT ck_runclaim_runs_pending_actions_not_negative",),
        ("runclaim_runs", CHECK, ""),
    ),
    "runclaim_run_keys, column rerun": (
        ("ALTER TABLE runclaim_run_keys ALTER rerun SET DEFAULT 1",),
        ("runclaim_run_keys", "rerun INTEGER DEFAULT '0'", "rerun INTEGER DEFAULT '1'"),
    ),
    "runclaim_runs, column fence": (
        ("ALTER TABLE runclaim_runs ALTER fence TYPE integer",),
        ("runclaim_runs", "fence BIGINT", "fence TEXT"),
    ),
}


def apply(database, statements, rewrite):
    with database.begin() as conn:
        if conn.dialect.name == "postgresql":
            for statement in statements:
                conn.exec_driver_sql(statement)
            return
        name, old, new = rewrite
        conn.exec_driver_sql("PRAGMA writable_schema = ON")
        changed = conn.exec_driver_sql(
            "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ? AND instr(sql, ?)", (old, new, name, old)
        )
        assert 1 == changed.rowcount


def check(database, *words):
    environment = {"RUNCLAIM_DATABASE_URL": database.url.render_as_string(hide_password=False)}
    database.close()
    return runner().invoke(
        cli.command, ["db", "check", *words], env=environment | {"RUNCLAIM_APP": None}, prog_name="runclaim"
    )


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_definition_ends_the_check_with_one_line(ledger_database, what):
    before = check(ledger_database)
    apply(ledger_database, *CHANGES[what])
    found = check(ledger_database)

    assert (0, 1) == (before.exit_code, found.exit_code)
    assert [what] == [line.split(": is ")[0] for line in found.stdout.splitlines()]
    assert "must be" in found.stdout


def test_the_differences_are_json_too(ledger_database):
    apply(ledger_database, *CHANGES["runclaim_run_keys, column rerun"])
    found = check(ledger_database, "--json")

    assert 1 == found.exit_code
    assert [True] == [
        line.startswith("runclaim_run_keys, column rerun: is") for line in json.loads(found.stdout)["differences"]
    ]
