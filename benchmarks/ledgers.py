"""Servers that are up for as long as a measurement takes, and ledgers on them."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runclaim import migrations
from runclaim.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def up(server: Any) -> Iterator[Any]:
    """The server, started; removed with its data in the end."""
    try:
        yield server.start()
    finally:
        server.remove()


def migrate(database_url: str) -> None:
    """Make the ledger's schema."""
    database = Database(database_url, patience=timedelta(seconds=10))
    migrations.upgrade(database)
    database.close()
