"""
The indexes of what only some runs have, made while others write.

On PostgreSQL that goes outside a transaction only, so a script of indexes holds nothing else and can be repeated: one
that was ended midway leaves an index that is not valid, which is made again.
"""

from __future__ import annotations

from runclaim.migrations.indexes import add_index

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
runs_with = "0007"
concurrently = True

#: Name, columns, which rows it holds, and whether it is unique.
_INDEXES = (
    (
        "ix_runclaim_runs_ended_of_subject",
        "project flow subject",
        "finished_at IS NOT NULL AND subject IS NOT NULL",
        False,
    ),
    ("ix_runclaim_runs_error_signature", "project error_signature finished_at", "error_signature IS NOT NULL", False),
    ("ix_runclaim_runs_parent", "parent_id parent_phase state", "parent_id IS NOT NULL", False),
    ("ix_runclaim_runs_parked", "limit_key priority parked_at", "parked_at IS NOT NULL", False),
    ("ix_runclaim_runs_timer_at", "timer_at", "timer_at IS NOT NULL AND finished_at IS NULL", False),
    ("uq_runclaim_runs_slot", "limit_key slot", "state = 'running' AND limit_key IS NOT NULL", True),
    (
        "uq_runclaim_runs_second_slot",
        "second_limit_key second_slot",
        "state = 'running' AND second_limit_key IS NOT NULL",
        True,
    ),
)


def upgrade() -> None:
    """Each is a statement of its own on PostgreSQL."""
    for name, columns, rows, is_unique in _INDEXES:
        add_index(name, "runclaim_runs", columns.split(), where=rows, unique=is_unique)
