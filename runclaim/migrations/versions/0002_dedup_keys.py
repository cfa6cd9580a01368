"""Dedup keys: webhook deliveries and payloads that were seen a moment ago."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; nothing existing is changed."""
    op.create_table(
        "runclaim_dedup_keys",
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("run_id", Id(), nullable=True),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key_hash", name=op.f("pk_runclaim_dedup_keys")),
    )
    op.create_index("ix_runclaim_dedup_keys_expires_at", "runclaim_dedup_keys", ["expires_at"], unique=False)
