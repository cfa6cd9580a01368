"""What the doors need: pages of runs, the flows that applications register, tokens, answers kept by their keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and indexes; existing ones keep their meaning."""
    _index("ix_runclaim_runs_live", [], "finished_at IS NULL")
    _index("ix_runclaim_runs_ended", ["project", "state"], "finished_at IS NOT NULL")
    _index("ix_runclaim_runs_ended_of_flow", ["project", "flow", "state"], "finished_at IS NOT NULL")
    op.create_table(
        "runclaim_flows",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("declared", Json(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("registered_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_runclaim_flows")),
    )
    op.create_table(
        "runclaim_signing_keys",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("made_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_runclaim_signing_keys")),
    )
    _tokens()
    _answers()


def _index(name: str, columns: list[str], which: str) -> None:
    where = sa.text(which)
    op.create_index(
        name,
        "runclaim_runs",
        [*columns, "enqueued_at", "id"],
        unique=False,
        postgresql_where=where,
        sqlite_where=where,
    )


def _tokens() -> None:
    op.create_table(
        "runclaim_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("scopes", Json(), nullable=False),
        sa.Column("projects", Json(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=True),
        sa.Column("last_used_at", Instant(), nullable=True),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runclaim_tokens")),
    )


def _answers() -> None:
    op.create_table(
        "runclaim_answers",
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("run_id", Id(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("headers", Json(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("pk_runclaim_answers")),
    )
    op.create_index("ix_runclaim_answers_expires_at", "runclaim_answers", ["expires_at"], unique=False)
