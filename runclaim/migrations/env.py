"""Alembic's entry: runs the scripts on the connection that `runclaim.migrations` hands over, or prints them."""

from __future__ import annotations

from alembic import context

from runclaim.migrations.revisions import VERSION_TABLE
from runclaim.migrations.scripts import record
from runclaim.models import metadata
from runclaim.sql.schemas import schema_on

_GIVEN = context.config.attributes

if context.is_offline_mode():
    context.configure(
        dialect_name=_GIVEN["dialect"],
        # The signs in a statement stay as they are: no driver reads them.
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        transactional_ddl=True,
        version_table=VERSION_TABLE,
        on_version_apply=record,
        **_GIVEN["options"],
    )
else:
    context.configure(
        connection=_GIVEN["connection"],
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        version_table_schema=schema_on(_GIVEN["connection"]),
        render_as_batch=True,
        on_version_apply=record,
        **_GIVEN["options"],
    )
with context.begin_transaction():
    context.run_migrations()
