"""Databases to upgrade: empty, and with the tables of this release."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runclaim.database import Database
from tests.harness.ledgers import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url, patience=timedelta(seconds=20))
    yield database
    database.close()


@pytest.fixture
def empty_database(database_url: str) -> Iterator[Database]:
    """Without a table, once on each of the two."""
    with opened(database_url) as database:
        yield database


@pytest.fixture
def ledger_database(ledger_url: str) -> Iterator[Database]:
    """With the tables of this release, once on each of the two."""
    with opened(ledger_url) as database:
        yield database


@pytest.fixture
def ledger_postgres(postgres_url: str) -> Iterator[Database]:
    """With the tables of this release, on PostgreSQL."""
    with opened(postgres_url) as database:
        migrate(database)
        yield database


@pytest.fixture
def ledger_sqlite(sqlite_url: str) -> Iterator[Database]:
    """With the tables of this release, on SQLite."""
    with opened(sqlite_url) as database:
        migrate(database)
        yield database
