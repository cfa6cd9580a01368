"""What attacks, foreign sessions and mixed releases asked of the tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json, Verbatim

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_LIVE = "'queued', 'running', 'waiting', 'blocked', 'failed'"


def upgrade() -> None:
    """Each part is a function of its own."""
    op.add_column("runclaim_runs", sa.Column("headers", Json(), nullable=True))
    _what_a_person_has_said()
    op.add_column("runclaim_dedup_keys", sa.Column("nonce", sa.Text(), nullable=True))
    _keep_no_body_of_an_answer()
    _pass_over_live_runs_of_others()
    # 0 could not be requested: it meant that none was given.
    op.execute(f"UPDATE runclaim_runs SET priority = -1 WHERE priority = 0 AND state IN ({_LIVE})")  # noqa: S608 - constants
    if op.get_context().dialect.name == "sqlite":
        _never_number_events_again()
    else:
        _keep_to_the_letter()


def _what_a_person_has_said() -> None:
    """Whether a call may be made again, apart from the doubt whether it has arrived, and whose decision it was."""
    for table in ("runclaim_acts", "runclaim_actions"):
        op.add_column(table, sa.Column("released", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("runclaim_actions", sa.Column("decision", sa.Text(), nullable=True))


def _keep_no_body_of_an_answer() -> None:
    """An answer names its run and its project; its body is made again, so that a small request stores little."""
    op.drop_column("runclaim_answers", "body")
    op.add_column("runclaim_answers", sa.Column("project", sa.Text(), nullable=True))
    op.create_index("ix_runclaim_answers_project", "runclaim_answers", ["project"], unique=False)


def _pass_over_live_runs_of_others() -> None:
    """The index of live runs ends with their project: those of another are passed over in it and not read."""
    live = sa.text("finished_at IS NULL")
    op.drop_index("ix_runclaim_runs_live", table_name="runclaim_runs")
    op.create_index(
        "ix_runclaim_runs_live",
        "runclaim_runs",
        ["enqueued_at", "id", "project"],
        unique=False,
        postgresql_where=live,
        sqlite_where=live,
    )


def _never_number_events_again() -> None:
    """
    Create the journal again, with AUTOINCREMENT.

    SQLite gives the numbers of purged last rows again, and a listener that had got there would never be told of the
    new ones. The numbers continue after the last one that a listener has seen.
    """
    op.rename_table("runclaim_events", "runclaim_events_before")
    op.create_table(
        "runclaim_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", Id(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("data", Json(), nullable=True),
        sa.Column("at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runclaim_runs.id"], name=op.f("fk_runclaim_events_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runclaim_events")),
        sqlite_autoincrement=True,
    )
    columns = "id, run_id, type, phase, attempt, fence, data, at"
    op.execute(f"INSERT INTO runclaim_events ({columns}) SELECT {columns} FROM runclaim_events_before")  # noqa: S608 - constants
    op.drop_table("runclaim_events_before")
    op.create_index("ix_runclaim_events_run_id", "runclaim_events", ["run_id", "id"], unique=False)
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'runclaim_events'")
    op.execute(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'runclaim_events', MAX("
        "(SELECT COALESCE(MAX(id), 0) FROM runclaim_events), (SELECT COALESCE(MAX(cursor), 0) FROM runclaim_listeners))"
    )


def _keep_to_the_letter() -> None:
    """
    Have PostgreSQL keep what bodies and handlers are given as it was written.

    `jsonb` sorts keys, makes an integer of 1e22 and takes the sign of -0.0. The tables are rewritten.
    """
    for table, column in (
        ("runclaim_runs", "input"),
        ("runclaim_phase_results", "result"),
        ("runclaim_signals", "payload"),
        ("runclaim_acts", "answer"),
        ("runclaim_actions", "payload"),
    ):
        op.alter_column(table, column, type_=Verbatim(), postgresql_using=f"{column}::json")
