"""The mark that replaces the input of an erased run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, cast, literal_column

from runclaim.models import runs
from runclaim.sql.rowset import verbatim

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

_TEXT: Final = '{"runclaim.erased":true}'
#: As an input is read.
ERASED: Final = {"runclaim.erased": True}
#: As a value that is written.
MARK: Final = verbatim(literal_column(f"'{_TEXT}'", Text()))
# Kept to the letter, so it can be compared as text.
WAS_ERASED: Final[ColumnElement[bool]] = cast(runs.c.input, Text()) == literal_column(f"'{_TEXT}'", Text())


def is_erased(recorded: Any) -> bool:
    """Whether a recorded input is that of an erased run."""
    return bool(recorded == ERASED)
