"""The priority of a run's messages. 0 is a priority; a run without one has -1 in its row, which is read as `None`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Integer, func, literal_column

from runclaim.models import runs

_NOT_GIVEN: Final = -1
#: What is read instead of the column.
PRIORITY: Final = func.nullif(runs.c.priority, literal_column(str(_NOT_GIVEN), Integer())).label("priority")


def stored(priority: int | None) -> int:
    """What is written."""
    return _NOT_GIVEN if priority is None else priority


def requested(priority: int) -> int | None:
    """What a row of the whole table says."""
    return None if priority == _NOT_GIVEN else priority
