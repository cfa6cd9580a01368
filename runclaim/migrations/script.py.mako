"""${message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
#: The oldest revision whose releases work on these tables, too.
runs_with = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
