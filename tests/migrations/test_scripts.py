"""Scripts add and never take away: a release before works on what they leave, while they run and after them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runclaim import migrations
from runclaim.migrations import scripts
from runclaim.migrations.revisions import OURS
from tests.migrations.additive import executed, objections
from tests.migrations.later_release import ADD_COLUMN, ADD_INDEX, with_script

#: Scripts up to this one are before the first release.
BEFORE_THE_FIRST_RELEASE = "0007"
TABLE = 'op.create_table("runclaim_later", sa.Column("id", sa.Integer(), nullable=False))'


def statements_of(database, schema):
    with executed(database) as statements:
        migrations.upgrade(database, schema)
    return statements


def test_every_script_only_adds_as_it_is_executed_on_tables_in_use(empty_database):
    """
    INVARIANT: an older release works on while its tables are upgraded, and after that.

    Breaks for a script that drops, renames or retypes, adds what older releases would have to fill, looks at every row,
    or makes an index of a table in use in its transaction.
    """
    dialect = empty_database.engine.dialect.name
    migrations.upgrade(empty_database, replace(OURS, head=BEFORE_THE_FIRST_RELEASE))
    for script in scripts.between(OURS, BEFORE_THE_FIRST_RELEASE, OURS.head):
        statements = statements_of(empty_database, replace(OURS, head=script.revision))

        assert [] == objections(statements, dialect), script.revision
    assert [] == migrations.differences(empty_database)


@pytest.mark.parametrize(
    "body, concurrently",
    [
        (ADD_COLUMN, False),
        ('op.add_column("runclaim_runs", sa.Column("n", sa.Integer(), server_default="0", nullable=False))', False),
        (f'{TABLE}\n    op.create_index("ix_new", "runclaim_later", ["id"])', False),
        (ADD_INDEX, True),
    ],
)
def test_what_adds_is_let_through(ledger_database, tmp_path, body, concurrently):
    later = with_script(tmp_path, body, concurrently=concurrently)

    assert [] == objections(statements_of(ledger_database, later), ledger_database.engine.dialect.name)


@pytest.mark.parametrize(
    "body, objection",
    [
        ('op.drop_column("runclaim_runs", "trace_context")', "ALTER TABLE runclaim_runs DROP COLUMN trace_context"),
        ('op.drop_table("runclaim_answers")', "DROP TABLE runclaim_answers"),
        ('op.drop_index("ix_runclaim_runs_live", "runclaim_runs")', "DROP INDEX ix_runclaim_runs_live"),
        ('op.execute("ALTER TABLE runclaim_runs RENAME COLUMN worker TO node")', "ALTER TABLE runclaim_runs RENAME"),
        ("op.execute(\"UPDATE runclaim_runs SET worker = ''\")", "UPDATE runclaim_runs SET worker"),
        (
            'op.execute("ALTER TABLE runclaim_runs ADD COLUMN n INTEGER DEFAULT 0 CHECK (n >= 0)")',
            "ALTER TABLE runclaim_runs ADD COLUMN n INTEGER DEFAULT 0 CHECK",
        ),
    ],
)  # fmt: skip
def test_what_takes_away_or_looks_at_every_row_is_objected_to(ledger_database, tmp_path, body, objection):
    found = objections(statements_of(ledger_database, with_script(tmp_path, body)), ledger_database.engine.dialect.name)

    assert [True] == [statement.startswith(objection) for statement in found]


@pytest.mark.parametrize(
    "body, objection",
    [
        (
            'op.alter_column("runclaim_runs", "attempts", type_=sa.BigInteger())',
            "ALTER TABLE runclaim_runs ALTER COLUMN attempts TYPE BIGINT",
        ),
        (
            'op.add_column("runclaim_runs", sa.Column("colour", sa.Text(), nullable=False))',
            "ALTER TABLE runclaim_runs ADD COLUMN colour TEXT NOT NULL",
        ),
        (
            'op.execute("ALTER TABLE runclaim_runs ADD COLUMN at timestamptz DEFAULT clock_timestamp()")',
            "ALTER TABLE runclaim_runs ADD COLUMN at timestamptz DEFAULT clock_timestamp()",
        ),
        (
            'op.create_index("ix_later", "runclaim_runs", ["worker"])',
            "CREATE INDEX ix_later ON runclaim_runs (worker)",
        ),
        (
            'op.create_check_constraint("later", "runclaim_runs", "fence >= 0")',
            "ALTER TABLE runclaim_runs ADD CONSTRAINT",
        ),
    ],
)
@pytest.mark.postgres
def test_on_postgresql_what_rewrites_or_locks_a_table_in_use_is_objected_to(ledger_postgres, tmp_path, body, objection):
    found = objections(statements_of(ledger_postgres, with_script(tmp_path, body)), "postgresql")

    assert [True] == [statement.startswith(objection) for statement in found]


def test_on_sqlite_a_table_that_is_made_again_is_objected_to(ledger_sqlite, tmp_path):
    body = (
        'with op.batch_alter_table("runclaim_counters") as batch:\n        batch.alter_column("value", type_=sa.Text())'
    )
    found = objections(statements_of(ledger_sqlite, with_script(tmp_path, body)), "sqlite")

    assert "DROP TABLE runclaim_counters" in found
