"""A bench for flows on both databases: SQLite in a new file each, PostgreSQL in one database that is emptied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from runclaim import Runclaim
from tests.harness.ledgers import put_away
from tests.servers import database
from tests.unit.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def bench_postgres_url(postgres_server: str) -> Iterator[str]:
    with database(postgres_server) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A ledger on each of the two databases, with a runner and no broker."""
    on_sqlite = request.param == "sqlite"
    made = Bench(request.getfixturevalue("sqlite_url" if on_sqlite else "bench_postgres_url"))
    yield made
    put_away(made)


@pytest.fixture
def laptop(sqlite_url: str) -> Iterator[Bench]:
    """A ledger on SQLite, for what has nothing to do with the database."""
    made = Bench(sqlite_url)
    yield made
    made.close()


@pytest.fixture
def postgres_bench(bench_postgres_url: str) -> Iterator[Bench]:
    """A ledger on PostgreSQL, for what only it has: rows that one transaction holds and others come to."""
    made = Bench(bench_postgres_url)
    yield made
    put_away(made)


@pytest.fixture
def make(ledger_url: str) -> Iterator[Callable[..., Runclaim]]:
    """Applications on one ledger: each is a process of its own, as far as the ledger can tell."""
    made: list[Runclaim] = []

    def application(**settings: Any) -> Runclaim:
        made.append(Runclaim(Celery(broker="memory://", set_as_current=False), database_url=ledger_url, **settings))
        return made[-1]

    yield application
    for runs in made:
        runs.close()
        runs.app.close()
