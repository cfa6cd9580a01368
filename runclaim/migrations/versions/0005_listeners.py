"""Who is told of the journal's events; and two indexes by which live rows are counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from runclaim.sql.clock import Instant
from runclaim.sql.rowset import Id, Json

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two tables and two partial indexes; existing ones are not changed."""
    op.create_table(
        "runclaim_listeners",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("held_until", Instant(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("available_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_runclaim_listeners")),
    )
    _untold()
    _partial("ix_runclaim_runs_stalled", "runclaim_runs", ["state", "flow"], "state IN ('waiting', 'blocked')")
    _partial("ix_runclaim_actions_unknown", "runclaim_actions", ["kind"], "state = 'unknown'")


def _untold() -> None:
    op.create_table(
        "runclaim_untold",
        sa.Column("listener", sa.Text(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("run_id", Id(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("available_at", Instant(), nullable=False),
        sa.Column("error", Json(), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'given_up')", name=op.f("ck_runclaim_untold_state_known")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runclaim_runs.id"], name=op.f("fk_runclaim_untold_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("listener", "event_id", name=op.f("pk_runclaim_untold")),
    )
    _partial("ix_runclaim_untold_available_at", "runclaim_untold", ["listener", "available_at"], "state = 'waiting'")
    op.create_index("ix_runclaim_untold_run_id", "runclaim_untold", ["run_id", "listener", "event_id"], unique=False)


def _partial(name: str, table: str, columns: list[str], which: str) -> None:
    where = sa.text(which)
    op.create_index(name, table, columns, unique=False, postgresql_where=where, sqlite_where=where)
