"""The ledger on both databases: migrated once a process, emptied after each test, every transition audited."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from runclaim import migrations
from runclaim.database import Database
from tests import servers
from tests.ledger import audit, factories
from tests.ledger import clock as clocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from runclaim.ledger.fence import Claim

TABLES = (
    "phase_results",
    "events",
    "runs",
    "run_keys",
    "subjects",
    "counters",
    "dedup_keys",
    "listeners",
    "named_sessions",
    "flows",
    "tokens",
    "answers",
    "signing_keys",
)


def migrated(url: str) -> Iterator[Database]:
    database = Database(url, patience=timedelta(seconds=20))
    migrations.upgrade(database)
    with database.begin() as conn:
        audit.install(conn)
        clocks.install(conn)
    yield database
    database.close()


def lent(database: Database) -> Iterator[Database]:
    yield database
    database.run(check_and_empty)


def check_and_empty(conn: Connection) -> None:
    audit.check_moves(conn)
    for table in (*(f"runclaim_{name}" for name in TABLES), "test_moves"):
        conn.execute(text(f"DELETE FROM {table}"))


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    yield from migrated(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> Iterator[Database]:
    with servers.database(postgres_server) as url:
        yield from migrated(url)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Both databases in turn, empty; what the test leaves behind has to be legal."""
    # By name: a parameter for SQLite must not start a PostgreSQL.
    name = "migrated_sqlite" if request.param == "sqlite" else "migrated_postgres"
    yield from lent(request.getfixturevalue(name))


@pytest.fixture
def postgres(migrated_postgres: Database) -> Iterator[Database]:
    """As `database`, for what only PostgreSQL has."""
    yield from lent(migrated_postgres)


@pytest.fixture
def sqlite(migrated_sqlite: Database) -> Iterator[Database]:
    """As `database`, for what only SQLite has."""
    yield from lent(migrated_sqlite)


@pytest.fixture
def clock(database: Database) -> Iterator[clocks.Clock]:
    """The ledger's clock stands still and moves by hand."""
    stopped = clocks.Clock(database)
    yield stopped
    stopped.release()


@pytest.fixture
def conn(clock: clocks.Clock, database: Database) -> Iterator[Connection]:
    """One transaction in stopped time, audited and rolled back."""
    with database.engine.connect() as connection, connection.begin() as transaction:
        yield connection
        audit.check_moves(connection)
        transaction.rollback()


@pytest.fixture
def queued_run(conn: Connection) -> str:
    return factories.queued_run(conn)


@pytest.fixture
def claimed_run(conn: Connection) -> Claim:
    return factories.claimed_run(conn)


@pytest.fixture(params=["read committed", "repeatable read", "serializable"])
def level(request: pytest.FixtureRequest) -> str:
    """The isolation level of an application's transactions."""
    found: str = request.param
    return found


#: The plans of a ledger with a long history, although the tables of a test are small.
LARGE = dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_bitmapscan", "jit"), "off")


@pytest.fixture
def db(postgres: Database, level: str) -> Iterator[Database]:
    """The emptied PostgreSQL, seen by an application whose transactions have that isolation level."""
    settings = LARGE | {
        "jit": "off",
        "default_transaction_isolation": level.replace(" ", "\\ "),
        "deadlock_timeout": "50ms",
    }
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    url = postgres.url.update_query_dict({"options": options})
    seen = Database(url.render_as_string(hide_password=False), patience=timedelta(seconds=20))
    yield seen
    seen.close()
