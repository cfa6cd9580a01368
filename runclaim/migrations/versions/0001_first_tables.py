"""The ledger's first tables: run keys, subjects, runs, phase results, events, counters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_CLOCK = "CREATE FUNCTION runclaim_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()'"


def upgrade() -> None:
    """Create everything; PostgreSQL also gets the one clock that all statements read."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(_CLOCK)
    op.create_table(
        "runclaim_counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "flow", name=op.f("pk_runclaim_counters")),
    )
    op.create_table(
        "runclaim_run_keys",
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("run_id", Id(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key_hash", name=op.f("pk_runclaim_run_keys")),
    )
    op.create_index("ix_runclaim_run_keys_expires_at", "runclaim_run_keys", ["expires_at"], unique=False)
    op.create_table(
        "runclaim_runs",
        sa.Column("id", Id(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("rerun", sa.Integer(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("input", Json(), nullable=False),
        sa.Column("phases", Json(), nullable=False),
        sa.Column("cursor", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", Instant(), nullable=True),
        sa.Column("deadline_at", Instant(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("max_losses", sa.Integer(), nullable=False),
        sa.Column("available_at", Instant(), nullable=False),
        sa.Column("dispatch_due_at", Instant(), nullable=False),
        sa.Column("dispatches", sa.Integer(), nullable=False),
        sa.Column("cancel_requested_at", Instant(), nullable=True),
        sa.Column("pending_actions", sa.Integer(), nullable=False),
        sa.Column("error", Json(), nullable=True),
        sa.Column("trace_context", Json(), nullable=True),
        sa.Column("enqueued_at", Instant(), nullable=False),
        sa.Column("started_at", Instant(), nullable=True),
        sa.Column("finished_at", Instant(), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (deadline_at IS NOT NULL)", name=op.f("ck_runclaim_runs_deadline_iff_running")
        ),
        sa.CheckConstraint(
            "(state = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_runclaim_runs_lease_iff_running")
        ),
        sa.CheckConstraint(
            "(state = 'running') = (owner IS NOT NULL)", name=op.f("ck_runclaim_runs_owner_iff_running")
        ),
        sa.CheckConstraint(
            "(state IN ('canceled', 'failed', 'succeeded', 'superseded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_runclaim_runs_finished_iff_terminal"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'waiting', 'blocked', 'succeeded', 'failed', 'canceled', 'superseded')",
            name=op.f("ck_runclaim_runs_state_known"),
        ),
        sa.CheckConstraint(
            "attempts >= 0 AND attempts <= max_attempts", name=op.f("ck_runclaim_runs_attempts_within_budget")
        ),
        sa.CheckConstraint("losses >= 0 AND losses <= max_losses", name=op.f("ck_runclaim_runs_losses_within_budget")),
        sa.CheckConstraint("pending_actions >= 0", name=op.f("ck_runclaim_runs_pending_actions_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runclaim_runs")),
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE runclaim_runs SET (fillfactor = 80)")
    op.create_index(
        "ix_runclaim_runs_dispatch_due_at",
        "runclaim_runs",
        ["dispatch_due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
        sqlite_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_runclaim_runs_finished_at",
        "runclaim_runs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
        sqlite_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "ix_runclaim_runs_lease_expires_at",
        "runclaim_runs",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
        sqlite_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_runclaim_runs_subject",
        "runclaim_runs",
        ["project", "flow", "subject"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL AND subject IS NOT NULL"),
        sqlite_where=sa.text("finished_at IS NULL AND subject IS NOT NULL"),
    )
    op.create_table(
        "runclaim_subjects",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "flow", "subject", name=op.f("pk_runclaim_subjects")),
    )
    op.create_table(
        "runclaim_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), sa.Identity(always=True), nullable=False),
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
    )
    op.create_index("ix_runclaim_events_run_id", "runclaim_events", ["run_id", "id"], unique=False)
    op.create_table(
        "runclaim_phase_results",
        sa.Column("run_id", Id(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("result", Json(), nullable=False),
        sa.Column("skipped", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("finished_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runclaim_runs.id"], name=op.f("fk_runclaim_phase_results_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "phase", name=op.f("pk_runclaim_phase_results")),
    )
