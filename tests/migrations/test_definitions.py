"""`db check`: the tables are exactly what this release needs, or each difference is told."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from runclaim import migrations
from runclaim.database import Database
from runclaim.migrations.definitions import differences, normal
from tests import servers


def migrated(url):
    database = Database(url, patience=timedelta(seconds=20))
    migrations.upgrade(database)
    yield database
    database.close()


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory):
    yield from migrated(f"sqlite:///{tmp_path_factory.mktemp('check')}/ledger.db")


@pytest.fixture(scope="module")
def on_postgresql(postgres_server):
    with servers.database(postgres_server) as url:
        yield from migrated(url)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def conn(request):
    """A ledger of each kind in one transaction, which is rolled back."""
    with request.getfixturevalue(f"on_{request.param}").engine.connect() as connection, connection.begin() as changes:
        yield connection
        changes.rollback()


@pytest.fixture
def postgres(on_postgresql):
    with on_postgresql.engine.connect() as connection, connection.begin() as changes:
        yield connection
        changes.rollback()


@pytest.fixture
def sqlite(on_sqlite):
    with on_sqlite.engine.connect() as connection, connection.begin() as changes:
        yield connection
        changes.rollback()


def change(conn, *statements):
    for statement in statements:
        conn.exec_driver_sql(statement)
    return differences(conn)


def rewritten(conn, table, old, new):
    """A table of SQLite's with another definition: it has no statement for that."""
    conn.exec_driver_sql("PRAGMA writable_schema = ON")
    done = conn.exec_driver_sql(
        "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = ? AND instr(sql, ?)", (old, new, table, old)
    )
    assert 1 == done.rowcount
    return differences(conn)


def test_what_the_migrations_make_is_what_this_release_needs(conn):
    """Breaks for a new expression that a server tells in words that `normal` does not know."""
    assert [] == differences(conn)


def test_a_reversed_predicate_of_an_index_is_told_with_both(conn):
    found = change(
        conn,
        "DROP INDEX ix_runclaim_runs_live",
        "CREATE INDEX ix_runclaim_runs_live ON runclaim_runs (enqueued_at, id) WHERE finished_at IS NOT NULL",
    )

    assert 1 == len(found)
    assert found[0].startswith("runclaim_runs, index ix_runclaim_runs_live: is CREATE INDEX ix_runclaim_runs_live ON")
    assert "finished_at IS NOT NULL" in found[0].split(", must be ")[0]
    assert "finished_at IS NULL" in found[0].split(", must be ")[1]


@pytest.mark.parametrize(
    "columns, told",
    [("id, enqueued_at", "must be"), ("enqueued_at DESC, id", "must be"), (None, "is missing")],
)
def test_an_index_of_other_columns_or_none_is_told(conn, columns, told):
    made = [] if columns is None else [
        f"CREATE INDEX ix_runclaim_runs_live ON runclaim_runs ({columns}) WHERE finished_at IS NULL"
    ]  # fmt: skip
    found = change(conn, "DROP INDEX ix_runclaim_runs_live", *made)

    assert [True] == [told in line for line in found]


def test_an_index_that_became_unique_is_told(conn):
    found = change(
        conn,
        "DROP INDEX ix_runclaim_run_keys_expires_at",
        "CREATE UNIQUE INDEX ix_runclaim_run_keys_expires_at ON runclaim_run_keys (expires_at)",
    )

    assert [True] == ["is CREATE UNIQUE INDEX" in line for line in found]


def test_what_was_added_by_hand_is_told(conn):
    found = change(
        conn,
        "ALTER TABLE runclaim_subjects ADD COLUMN colour TEXT",
        "CREATE INDEX ix_of_mine ON runclaim_counters (value)",
    )

    assert [
        "runclaim_counters, index ix_of_mine",
        "runclaim_subjects, column colour",
    ] == [line.split(": ")[0] for line in found]
    assert all("which this release does not have" in line for line in found)


def test_a_trigger_that_was_added_is_told(conn):
    """Breaks if only what this release makes is looked at: a trigger decides what is written."""
    acts = "EXECUTE FUNCTION suppress_redundant_updates_trigger()" if conn.dialect.name == "postgresql" else (
        "BEGIN SELECT RAISE(IGNORE); END"
    )  # fmt: skip
    found = change(conn, f"CREATE TRIGGER mine BEFORE UPDATE ON runclaim_runs FOR EACH ROW {acts}")

    assert [True] == [line.startswith("runclaim_runs, trigger mine: is CREATE TRIGGER mine BEFORE") for line in found]


def test_a_table_that_is_gone_is_one_line(conn):
    assert [
        "runclaim_dedup_keys, table: is missing, must be a table of rows that outlive a crash, all of them to be seen"
    ] == change(conn, "DROP TABLE runclaim_dedup_keys")


@pytest.mark.parametrize(
    "statement, what",
    [
        (
            "ALTER TABLE runclaim_runs DROP CONSTRAINT ck_runclaim_runs_state_known",
            "runclaim_runs, constraint ck_runclaim_runs_state_known: is missing",
        ),
        (
            (
                "ALTER TABLE runclaim_runs DROP CONSTRAINT ck_runclaim_runs_losses_within_budget,"
                " ADD CONSTRAINT ck_runclaim_runs_losses_within_budget CHECK (losses >= 0 AND losses < max_losses)"
            ),
            "runclaim_runs, constraint ck_runclaim_runs_losses_within_budget: is CHECK",
        ),
        (
            (
                "ALTER TABLE runclaim_runs DROP CONSTRAINT ck_runclaim_runs_pending_actions_not_negative,"
                " ADD CONSTRAINT ck_runclaim_runs_pending_actions_not_negative CHECK (pending_actions >= 0) NOT VALID"
            ),
            "runclaim_runs, constraint ck_runclaim_runs_pending_actions_not_negative: is CHECK",
        ),
        (
            (
                "ALTER TABLE runclaim_events DROP CONSTRAINT fk_runclaim_events_run_id,"
                " ADD CONSTRAINT fk_runclaim_events_run_id FOREIGN KEY (run_id) REFERENCES runclaim_runs (id)"
            ),
            "runclaim_events, constraint fk_runclaim_events_run_id: is FOREIGN KEY",
        ),
        ("ALTER TABLE runclaim_run_keys ALTER rerun SET DEFAULT 1", "runclaim_run_keys, column rerun: is integer"),
        ("ALTER TABLE runclaim_run_keys ALTER rerun DROP DEFAULT", "runclaim_run_keys, column rerun: is integer"),
        ("ALTER TABLE runclaim_runs ALTER key DROP NOT NULL", "runclaim_runs, column key: is text,"),
        ("ALTER TABLE runclaim_runs ALTER attempts TYPE bigint", "runclaim_runs, column attempts: is bigint"),
        (
            "ALTER TABLE runclaim_events ALTER id SET GENERATED BY DEFAULT",
            "runclaim_events, column id: is bigint not null generated by default as identity",
        ),
        (
            "ALTER TABLE runclaim_runs RESET (autovacuum_vacuum_scale_factor)",
            "runclaim_runs, setting autovacuum_vacuum",
        ),
        (
            "ALTER TABLE runclaim_counters SET UNLOGGED",
            "runclaim_counters, table: is a table whose rows a crash deletes",
        ),
        ("ALTER TABLE runclaim_runs ENABLE ROW LEVEL SECURITY", "runclaim_runs, table: is a table with row level"),
        (
            'ALTER TABLE runclaim_runs ALTER key TYPE text COLLATE "POSIX"',
            "runclaim_runs, column key: is text collate POSIX not null, must be text not null",
        ),
        (
            "CREATE RULE mine AS ON DELETE TO runclaim_runs DO INSTEAD NOTHING",
            "runclaim_runs, rule mine: is CREATE RULE mine AS",
        ),
        (
            "CREATE OR REPLACE FUNCTION runclaim_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now()'",
            "runclaim_now, function: is s timestamp with time zone sql SELECT now()",
        ),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_runclaim_runs_live'::regclass",
            "runclaim_runs, index ix_runclaim_runs_live: is CREATE INDEX",
        ),
    ],
)
def test_on_postgresql_another_definition_is_told(postgres, statement, what):
    found = change(postgres, statement)

    assert 1 == len(found)
    assert found[0].startswith(what)


def test_a_foreign_key_whose_triggers_are_off_is_told(postgres):
    found = change(postgres, "ALTER TABLE runclaim_events DISABLE TRIGGER ALL")

    assert found
    assert all("is disabled: CREATE CONSTRAINT TRIGGER" in line for line in found)


@pytest.mark.parametrize(
    "table, old, new, what",
    [
        ("runclaim_runs", "losses <= max_losses", "losses < max_losses", "constraint ck_runclaim_runs_losses_within_"),
        ("runclaim_events", " AUTOINCREMENT", "", "column id"),
        ("runclaim_events", " ON DELETE CASCADE", "", "constraint fk_runclaim_events_run_id"),
        ("runclaim_run_keys", "DEFAULT '0'", "DEFAULT '1'", "column rerun"),
        ("runclaim_subjects", "subject TEXT NOT NULL", "subject TEXT", "column subject"),
        ("runclaim_counters", "value BIGINT", "value TEXT", "column value"),
    ],
)
def test_on_sqlite_another_definition_is_told(sqlite, table, old, new, what):
    found = rewritten(sqlite, table, old, new)

    assert [True] == [line.startswith(f"{table}, {what}") for line in found]


def test_numbers_that_would_be_given_again_are_told_with_what_mends_it(conn):
    """
    INVARIANT: no event gets a number that a listener is past.

    Breaks if rows alone are looked at: those that a listener was told of may be purged.
    """
    found = change(
        conn,
        "INSERT INTO runclaim_listeners (name, cursor, failures, available_at)"
        f" VALUES ('audit', 90, 0, {'0' if conn.dialect.name == 'sqlite' else 'now()'})",
    )
    mend = found[0].rpartition(" to fix it: ")[2]

    assert [True] == [
        "runclaim_events, column id: continues at 1, but numbers up to 90 were used" in line for line in found
    ]
    assert [] == change(conn, mend)


def test_a_role_that_may_only_read_the_tables_can_ask(on_postgresql):
    role = f"reads_{uuid4().hex[:8]}"
    with on_postgresql.begin() as conn:
        conn.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        conn.exec_driver_sql(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        conn.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        conn.exec_driver_sql(f"REVOKE TEMPORARY ON DATABASE {on_postgresql.url.database} FROM PUBLIC")
    url = make_url(on_postgresql.url).set(username=role)
    seen = Database(url.render_as_string(hide_password=False), patience=timedelta(seconds=5))
    found = migrations.differences(seen)
    seen.close()
    with on_postgresql.begin() as conn:
        conn.exec_driver_sql(f"DROP OWNED BY {role}")
        conn.exec_driver_sql(f"DROP ROLE {role}")

    assert [] == found


@pytest.mark.parametrize(
    "one, other",
    [
        ("CHECK (((state = 'posted'::text) = (at IS NULL)))", "CHECK ((state = 'posted') = (at IS NULL))"),
        ("state = ANY (ARRAY['a'::text, 'b'::text])", "state IN ('a', 'b')"),
        ("(state <> ALL (ARRAY['a'::character varying, 'b'::character varying]))", "state NOT IN ('a', 'b')"),
        ("CREATE INDEX i ON public.t USING btree (a, b)", "CREATE INDEX i ON t (a, b)"),
        ("n >= 1.5 AND text = ''::text", "n >= 1.5 AND text = ''"),
    ],
)
def test_a_definition_is_the_same_in_other_words(one, other):
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("at IS NULL", "at IS NOT NULL"),
        ("state = 'A'", "state = 'a'"),
        ("state IN ('a', 'b')", "state NOT IN ('a', 'b')"),
        ("n >= 1.5", "n >= 2.5"),
        ("name = 'a b'", "name = 'a  b'"),
    ],
)
def test_a_definition_that_means_something_else_is_not_the_same(one, other):
    assert normal(one) != normal(other)
