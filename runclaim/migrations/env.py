"""Alembic's entry: runs the scripts on the connection that `runclaim.migrations` hands over."""

from __future__ import annotations

from alembic import context

from runclaim.migrations import VERSION_TABLE
from runclaim.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
