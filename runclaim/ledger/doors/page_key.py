"""
page_key: one key of a ledger for what its doors hand out and take back, the same in every process.

Deleting its row is a rotation: the next listing makes another, and earlier page tokens are no longer valid.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, literal, select

from runclaim.models import signing_keys
from runclaim.sql.clock import now
from runclaim.sql.upsert import upsert

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MAKE: Final = upsert(
    signing_keys,
    lambda new: new.from_select(
        ["name", "key", "made_at"], select(literal("pages"), bindparam("fresh"), now())
    ).on_conflict_do_nothing(index_elements=["name"]),
)
_READ: Final = select(signing_keys.c.key).where(signing_keys.c.name == "pages")


def find_page_key(conn: Connection) -> bytes | None:
    """The key that page tokens are signed with, or `None` before the first one was made. Only reads."""
    found = conn.execute(_READ).scalar_one_or_none()
    return None if found is None else bytes.fromhex(found)


def page_key(conn: Connection) -> bytes:
    """The key that page tokens are signed with, made now if there is none. The caller owns the transaction."""
    conn.execute(_MAKE[conn.dialect.name], {"fresh": os.urandom(32).hex()})
    return bytes.fromhex(conn.execute(_READ).scalar_one())
