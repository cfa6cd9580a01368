"""Scripts of a release that comes after this one, so that two releases meet on one database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runclaim.migrations.revisions import HEAD, OURS

if TYPE_CHECKING:
    from pathlib import Path

    from runclaim.migrations.revisions import Schema

#: Any index of a table that exists; what a script of indexes makes.
ADD_INDEX = 'add_index("ix_later", "runclaim_runs", ["worker"], where="worker IS NOT NULL")'
#: Any column that older releases need not know.
ADD_COLUMN = 'op.add_column("runclaim_runs", sa.Column("colour", sa.Text(), nullable=True))'
_SCRIPT = '''"""{title}."""

import sqlalchemy as sa
from alembic import op
from runclaim.migrations.indexes import add_index

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None
runs_with = "{runs_with}"
concurrently = {concurrently}


def upgrade():
    {body}
'''


def next_to(revision: str) -> str:
    """The number of the script that follows."""
    return f"{int(revision) + 1:04d}"


def with_script(
    folder: Path, body: str, *, after: Schema = OURS, runs_with: str = HEAD, concurrently: bool = False
) -> Schema:
    """The schema of a release that has one script more than `after`."""
    revision = next_to(after.head)
    text = _SCRIPT.format(
        title="A later script", revision=revision, before=after.head, runs_with=runs_with, concurrently=concurrently,
        body=body,
    )  # fmt: skip
    folder.joinpath(f"{revision}_later.py").write_text(text)
    folders = after.folders if folder in after.folders else (*after.folders, folder)
    return replace(after, head=revision, folders=folders)
