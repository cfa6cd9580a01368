"""Running rows by their deadline, which stands while a heartbeat moves the lease."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Exchange an index of running rows: with none on the lease, a heartbeat writes to no index."""
    running = sa.text("state = 'running'")
    op.create_index(
        "ix_runclaim_runs_deadline_at",
        "runclaim_runs",
        ["deadline_at"],
        unique=False,
        postgresql_where=running,
        sqlite_where=running,
    )
    op.drop_index("ix_runclaim_runs_lease_expires_at", table_name="runclaim_runs")
