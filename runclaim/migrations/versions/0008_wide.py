"""The columns and tables of what only some flows use; they cost nothing to those that do not use them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
#: The oldest revision whose releases work on these tables, too.
runs_with = "0007"

_RUN_COLUMNS = {
    sa.Text: "output_ref delivery_id delivery_action release parent_phase item limit_key second_limit_key wait_else"
    " error_signature",
    Instant: "updated_at claimed_at parked_at wait_until expires_at run_deadline_at timer_at",
    Id: "parent_id",
    sa.Integer: "slot second_slot",
    sa.BigInteger: "subject_version",
    Json: "tags progress",
}


def upgrade() -> None:
    """Each part is a function of its own."""
    for kind, names in _RUN_COLUMNS.items():
        for name in names.split():
            op.add_column("runclaim_runs", sa.Column(name, kind(), nullable=True))
    op.add_column("runclaim_phase_results", sa.Column("output_ref", sa.Text(), nullable=True))
    op.add_column("runclaim_run_keys", sa.Column("again", sa.Text(), nullable=True))
    op.add_column("runclaim_subjects", sa.Column("version", sa.BigInteger(), nullable=True))
    _schema_and_releases()
    _parts_of_runs()
    _limits_and_pauses()
    _schedules_and_duties()
    _bulk()


def _schema_and_releases() -> None:
    op.create_table(
        "runclaim_schema",
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("runs_with", sa.Text(), nullable=False),
        sa.Column("applied_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_runclaim_schema")),
    )
    op.create_table(
        "runclaim_releases",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("declared", Json(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("first_seen_at", Instant(), nullable=False),
        sa.Column("last_seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("project", "flow", "release", name=op.f("pk_runclaim_releases")),
    )


def _parts_of_runs() -> None:
    op.create_table(
        "runclaim_joins",
        sa.Column("run_id", Id(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("open", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.CheckConstraint("open >= 0 AND failed >= 0", name=op.f("ck_runclaim_joins_counts_not_negative")),
        _of_a_run("runclaim_joins"),
        sa.PrimaryKeyConstraint("run_id", "phase", "shard", name=op.f("pk_runclaim_joins")),
    )
    op.create_table(
        "runclaim_maps",
        sa.Column("run_id", Id(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("items", Json(), nullable=False),
        sa.Column("made_at", Instant(), nullable=True),
        _of_a_run("runclaim_maps"),
        sa.PrimaryKeyConstraint("run_id", "phase", "page", name=op.f("pk_runclaim_maps")),
    )


def _of_a_run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["run_id"], ["runclaim_runs.id"], name=op.f(f"fk_{table}_run_id"), ondelete="CASCADE"
    )


def _limits_and_pauses() -> None:
    op.create_table(
        "runclaim_limits",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("limit_key", sa.Text(), nullable=False),
        sa.Column("at_most", sa.Integer(), nullable=True),
        sa.Column("rate_seconds", sa.Double(), nullable=True),
        sa.Column("rate_burst", sa.Integer(), nullable=True),
        sa.Column("next_at", Instant(), nullable=True),
        sa.Column("set_by", sa.Text(), nullable=True),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("project", "limit_key", name=op.f("pk_runclaim_limits")),
    )
    op.create_table(
        "runclaim_pauses",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("paused_at", Instant(), nullable=False),
        sa.Column("until", Instant(), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("project", "scope", "target", name=op.f("pk_runclaim_pauses")),
    )


def _schedules_and_duties() -> None:
    op.create_table(
        "runclaim_schedules",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("definition", Json(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("next_at", Instant(), nullable=True),
        sa.Column("last_at", Instant(), nullable=True),
        sa.Column("paused_at", Instant(), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_runclaim_schedules")),
    )
    due = sa.text("paused_at IS NULL AND next_at IS NOT NULL")
    op.create_index(
        "ix_runclaim_schedules_next_at", "runclaim_schedules", ["next_at"], postgresql_where=due, sqlite_where=due
    )
    op.create_table(
        "runclaim_duties",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("due_at", Instant(), nullable=False),
        sa.Column("taken_at", Instant(), nullable=True),
        sa.Column("done_at", Instant(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_runclaim_duties")),
    )


def _bulk() -> None:
    op.create_table(
        "runclaim_bulk",
        sa.Column("id", Id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("filter", Json(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("refused", sa.Integer(), server_default="0", nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.Column("finished_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runclaim_bulk")),
    )
    still_open = sa.text("finished_at IS NULL")
    op.create_index(
        "ix_runclaim_bulk_open",
        "runclaim_bulk",
        ["requested_at"],
        postgresql_where=still_open,
        sqlite_where=still_open,
    )
