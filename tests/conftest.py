"""
Fixtures for real servers and databases.

A server that cannot be had fails every test that needs it, with the command that fixes it. `--servers=none` is the only
way to leave these tests out, and the summary then counts them.
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from sqlalchemy.engine import make_url

from runclaim import Runclaim
from runclaim.database import Database
from runclaim.servers import Server, ServerMissing, valkey
from tests.harness.bench import Bench
from tests.harness.ledgers import migrate, put_away
from tests.servers import VARIABLE, Desk, External, Remote, database, external, postgres, rabbitmq, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHARED = {
    "postgres_server": "postgres",
    "postgres_url": "postgres",
    "rabbitmq_server": "rabbitmq",
    "rabbitmq_url": "rabbitmq",
}
PRIVATE = {
    "private_postgres": "postgres",
    "private_rabbitmq": "rabbitmq",
    "private_valkey": "redis",
    "valkey_server": "redis",
}

DESK = pytest.StashKey[Desk | Remote]()


@pytest.fixture(scope="session")
def desk(request: pytest.FixtureRequest) -> Desk | Remote:
    return request.config.stash[DESK]


@pytest.fixture(scope="session")
def postgres_server(desk: Desk) -> str:
    """The URL of the shared PostgreSQL, as its superuser. A test wants `postgres_url`, a database of its own in it."""
    with found("postgres", desk):
        return desk.ask("url", "postgres")


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A new, empty database on PostgreSQL."""
    with database(postgres_server) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A new, empty database, once on each of the two."""
    # By name: a parameter for SQLite must not start a PostgreSQL.
    return request.getfixturevalue({"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param])


@pytest.fixture
def ledger_url(database_url: str) -> str:
    """A new ledger without a run, once on each of the two."""
    database = Database(database_url, patience=timedelta(seconds=20))
    migrate(database)
    database.close()
    return database_url


@pytest.fixture(scope="session")
def rabbitmq_server(desk: Desk) -> str:
    """The URL of the shared RabbitMQ. A test wants `rabbitmq_url`, a virtual host of its own in it."""
    with found("rabbitmq", desk):
        return desk.ask("url", "rabbitmq")


@pytest.fixture
def rabbitmq_url(rabbitmq_server: str, desk: Desk) -> Iterator[str]:
    """A new, empty virtual host on RabbitMQ."""
    url = desk.ask("open_vhost")
    yield url
    desk.ask("close_vhost", url)


@pytest.fixture
def valkey_server(desk: Desk) -> Iterator[Server | External]:
    """A Valkey of this test's own; with RUNCLAIM_TEST_REDIS_URL an emptied database of that one."""
    if given := external("redis"):
        url = make_url(given.url).set(database=os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        with redis.Redis.from_url(str(url)) as client:
            client.flushdb()
        yield External("redis", str(url))
    else:
        with own("redis", valkey, desk) as server:
            yield server


@pytest.fixture
def private_valkey(desk: Desk) -> Iterator[Server]:
    """A Valkey of this test's own, whatever the environment names: to be harmed."""
    with own("redis", valkey, desk) as server:
        yield server


@pytest.fixture
def private_postgres(desk: Desk) -> Iterator[Server]:
    """A PostgreSQL of this test's own that flushes each commit to the disk."""
    with own("postgres", lambda: postgres(durable=True), desk) as server:
        yield server


@pytest.fixture
def private_rabbitmq(desk: Desk) -> Iterator[Server]:
    """A RabbitMQ of this test's own."""
    with own("rabbitmq", rabbitmq, desk) as server:
        yield server


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


@contextlib.contextmanager
def own(kind: str, make: Callable[[], Server], desk: Desk) -> Iterator[Server]:
    with found(kind, desk):
        began = time.monotonic()
        server = started(make)
        desk.ask("note", f"private {kind}: {server.how}", time.monotonic() - began)
    with server:
        yield server


@contextlib.contextmanager
def found(kind: str, desk: Desk) -> Iterator[None]:
    try:
        yield
    except ServerMissing as missing:
        desk.ask("note_missing", kind, str(missing))
        pytest.fail(
            f"{missing}\n(--servers=none leaves out, on purpose, every test that needs a server)", pytrace=False
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        default="auto",
        choices=("auto", "none"),
        help="none: leave out every test that needs a real server",
    )


def pytest_configure(config: pytest.Config) -> None:
    told = getattr(config, "workerinput", None)
    config.stash[DESK] = Remote(*told["desk"]) if told else Desk()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """xdist: tell a worker where the desk is."""
    node.workerinput["desk"] = node.config.stash[DESK].serve()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, left_out = [], []
    for item in items:
        for name in (SHARED | PRIVATE).keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker((SHARED | PRIVATE)[name])
        (left_out if any(item.get_closest_marker(kind) for kind in VARIABLE) else kept).append(item)
    if config.getoption("--servers") == "none":
        items[:] = kept
        config.hook.pytest_deselected(items=left_out)
        config.stash[DESK].ask("note_left_out", len(left_out))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Shared servers start while the tests that need none run."""
    wanted = set()
    for item in session.items:
        names = set(getattr(item, "fixturenames", ()))
        wanted |= {SHARED[name] for name in SHARED.keys() & names}
        if "database_url" in names and item.get_closest_marker("postgres"):
            wanted.add("postgres")
    if not session.config.option.collectonly:
        for kind in wanted:
            session.config.stash[DESK].ask("want", kind)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    desk = config.stash[DESK]
    for what, seconds in sorted(desk.started.items()):
        times = "up in" if len(seconds) == 1 else f"{len(seconds)} times, each up within"
        terminalreporter.write_line(f"server {what}, {times} {max(seconds):.1f} s")
    for kind, message in desk.missing.items():
        terminalreporter.write_line(f"server {kind}: MISSING, {message}", red=True)
    if desk.left_out:
        terminalreporter.write_line(
            f"--servers=none: {desk.left_out} tests that need real servers DID NOT RUN", yellow=True
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    desk = config.stash.get(DESK, None)
    if isinstance(desk, Desk):
        desk.close()
