"""Sessions, findings, actions, acts and signals; what runs wait for, and reruns of a key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and columns; existing ones keep their meaning."""
    op.add_column("runclaim_runs", sa.Column("waits_for", sa.Text(), nullable=True))
    op.add_column("runclaim_runs", sa.Column("signals", sa.Text(), server_default="", nullable=False))
    op.add_column("runclaim_run_keys", sa.Column("rerun", sa.Integer(), server_default="0", nullable=False))
    _signals()
    _sessions()
    _findings()
    _actions()
    _acts()


def _run_id(table: str) -> tuple[sa.Column[str], sa.ForeignKeyConstraint]:
    key = sa.ForeignKeyConstraint(["run_id"], ["runclaim_runs.id"], name=op.f(f"fk_{table}_run_id"), ondelete="CASCADE")
    return sa.Column("run_id", Id(), nullable=False), key


def _signals() -> None:
    column, key = _run_id("runclaim_signals")
    op.create_table(
        "runclaim_signals",
        column,
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("signal_id", sa.Text(), nullable=False),
        sa.Column("payload", Json(), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        key,
        sa.PrimaryKeyConstraint("run_id", "name", "signal_id", name=op.f("pk_runclaim_signals")),
    )


def _sessions() -> None:
    column, key = _run_id("runclaim_sessions")
    op.create_table(
        "runclaim_sessions",
        sa.Column("id", Id(), nullable=False),
        column,
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("provider_session_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("artifact_path", sa.Text(), nullable=True),
        sa.Column("blocking_count", sa.Integer(), nullable=False),
        sa.Column("started_at", Instant(), nullable=False),
        sa.Column("completed_at", Instant(), nullable=True),
        sa.CheckConstraint(
            "status IN ('started', 'completed', 'failed')", name=op.f("ck_runclaim_sessions_status_known")
        ),
        sa.CheckConstraint(
            "(status = 'started') = (completed_at IS NULL)", name=op.f("ck_runclaim_sessions_completed_iff_ended")
        ),
        sa.CheckConstraint("blocking_count >= 0", name=op.f("ck_runclaim_sessions_blocking_count_not_negative")),
        key,
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runclaim_sessions")),
        sa.UniqueConstraint("run_id", "phase", "role", name=op.f("uq_runclaim_sessions_run_id_phase_role")),
    )
    op.create_table(
        "runclaim_named_sessions",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider_session_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("run_id", Id(), nullable=True),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_runclaim_named_sessions")),
    )


def _findings() -> None:
    column, key = _run_id("runclaim_findings")
    op.create_table(
        "runclaim_findings",
        sa.Column("id", Id(), nullable=False),
        column,
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("session_id", Id(), nullable=True),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("line", sa.Integer(), nullable=True),
        sa.Column("found_at", Instant(), nullable=False),
        sa.CheckConstraint("line > 0", name=op.f("ck_runclaim_findings_line_from_one")),
        key,
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["runclaim_sessions.id"],
            name=op.f("fk_runclaim_findings_session_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runclaim_findings")),
    )
    op.create_index("ix_runclaim_findings_run_id", "runclaim_findings", ["run_id"], unique=False)
    op.create_index("ix_runclaim_findings_session_id", "runclaim_findings", ["session_id"], unique=False)


def _actions() -> None:
    column, key = _run_id("runclaim_actions")
    op.create_table(
        "runclaim_actions",
        sa.Column("id", Id(), nullable=False),
        column,
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", Json(), nullable=False),
        sa.Column("finding_id", Id(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("uncertain", sa.Boolean(), nullable=False),
        sa.Column("superseded", sa.Boolean(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("available_at", Instant(), nullable=False),
        sa.Column("upstream_id", sa.Text(), nullable=True),
        sa.Column("error", Json(), nullable=True),
        sa.Column("planned_at", Instant(), nullable=False),
        sa.Column("attempted_at", Instant(), nullable=True),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.CheckConstraint(
            "state IN ('planned', 'sending', 'posted', 'failed', 'unknown')",
            name=op.f("ck_runclaim_actions_state_known"),
        ),
        sa.CheckConstraint(
            "(state = 'sending') = (owner IS NOT NULL)", name=op.f("ck_runclaim_actions_owner_iff_sending")
        ),
        sa.CheckConstraint(
            "(state IN ('planned', 'sending')) = (ended_at IS NULL)",
            name=op.f("ck_runclaim_actions_ended_iff_settled"),
        ),
        key,
        sa.ForeignKeyConstraint(
            ["finding_id"],
            ["runclaim_findings.id"],
            name=op.f("fk_runclaim_actions_finding_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runclaim_actions")),
        sa.UniqueConstraint("run_id", "phase", "name", name=op.f("uq_runclaim_actions_run_id_phase_name")),
    )
    due = sa.text("state IN ('planned', 'sending')")
    op.create_index(
        "ix_runclaim_actions_available_at",
        "runclaim_actions",
        ["available_at"],
        unique=False,
        postgresql_where=due,
        sqlite_where=due,
    )
    op.create_index("ix_runclaim_actions_finding_id", "runclaim_actions", ["finding_id"], unique=False)


def _acts() -> None:
    column, key = _run_id("runclaim_acts")
    op.create_table(
        "runclaim_acts",
        column,
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("answer", Json(), nullable=True),
        sa.Column("attempted_at", Instant(), nullable=False),
        sa.Column("answered_at", Instant(), nullable=True),
        sa.CheckConstraint("state IN ('sending', 'posted')", name=op.f("ck_runclaim_acts_state_known")),
        sa.CheckConstraint(
            "(state = 'posted') = (answered_at IS NOT NULL)", name=op.f("ck_runclaim_acts_answered_iff_posted")
        ),
        key,
        sa.PrimaryKeyConstraint("run_id", "phase", "name", name=op.f("pk_runclaim_acts")),
    )
