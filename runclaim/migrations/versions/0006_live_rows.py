"""Live rows cost what they cost however long the history is: fewer index entries, and a vacuum in time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """
    Exchange an index of running rows: with none on the lease, a heartbeat writes to no index.

    And vacuum runs when a fiftieth of them is dead, not a fifth: what is dead is at the live end of a long history.
    """
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
    if op.get_context().dialect.name == "postgresql":
        factors = ", ".join(f"autovacuum_{kind}_scale_factor = 0.02" for kind in ("vacuum", "analyze"))
        op.execute(f"ALTER TABLE runclaim_runs SET ({factors})")
