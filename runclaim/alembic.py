"""
For the `env.py` of an application that shares its database with the ledger: Alembic leaves the ledger's tables alone.

Otherwise `alembic revision --autogenerate` proposes to drop them: it takes every table that is not in the application's
metadata for one that was removed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The ledger's tables have this prefix, also those that a later release brings.
_PREFIX: Final = "runclaim_"


def include_name(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:  # noqa: ARG001 - as Alembic calls it
    """
    False for the ledger's tables: `context.configure(…, include_name=include_name)`.

    An `include_name` of your own asks it first: `include_name(name, type_, parent_names) and …`.
    """
    return not (type_ == "table" and name is not None and name.startswith(_PREFIX))
