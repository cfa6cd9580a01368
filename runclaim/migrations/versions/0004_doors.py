"""What the doors need: pages of runs, the flows that applications register, tokens, answers kept by their keys."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add tables and indexes; what stands keeps its meaning."""
    by_time = ["state", "enqueued_at", "id"]
    op.create_index("ix_runclaim_runs_state", "runclaim_runs", ["project", *by_time], unique=False)
    op.create_index("ix_runclaim_runs_flow", "runclaim_runs", ["project", "flow", *by_time], unique=False)
