"""
Waiting: whether a phase has to wait for its signal, decided by columns of the run's own row.

A signal is latched: a run receives a name once, and every phase that waits for it passes from then on. Names
are between bars, and a name is looked for by taking it out: nothing in it is a wildcard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, and_, func, literal_column

from runclaim.models import runs

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

_BAR: Final = literal_column("'|'", Text())
_NOTHING: Final = literal_column("''", Text())


def barred(name: ColumnElement[Any]) -> ColumnElement[str]:
    """A name as the column `signals` keeps it."""
    return _BAR + name + _BAR


def received(name: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether the run has received the signal of that name; NULL without a name."""
    return func.replace(runs.c.signals, barred(name), _NOTHING) != runs.c.signals


def waits(name: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a phase that waits for that name has to wait in this run; false without a name."""
    return and_(name.is_not(None), ~received(name))
