"""The project's own private servers under the names and ports that the peers' bench asks for."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.engine import make_url

from runclaim.servers import valkey
from tests.servers.postgres import postgres
from tests.servers.rabbitmq import rabbitmq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def servers(root: Path, *, with_rabbit: bool) -> Iterator[dict[str, int]]:
    """
    Start them; the bench's environment variables and the ports they name.

    The bench reads each server's process id in `root`, for its CPU time.
    """
    kinds: list[tuple[str, str, Any]] = [
        ("pg", "BENCH_PGPORT", postgres(durable=True)),
        ("redis", "BENCH_REDIS_PORT", valkey()),
    ]
    if with_rabbit:
        kinds.append(("rabbit", "BENCH_AMQP_PORT", rabbitmq()))
    ports: dict[str, int] = {}
    try:
        for kind, variable, server in kinds:
            server.start()
            print(f"{kind}: {server.how}", flush=True)
            (root / f"{kind}.pid").write_text(f"{server.pid}\n")
            ports[variable] = make_url(server.url).port or 0
        with psycopg.connect(kinds[0][2].url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CREATE ROLE bench SUPERUSER LOGIN")
        yield ports
    finally:
        for _, _, server in reversed(kinds):
            server.remove()
        shutil.rmtree(root / "run", ignore_errors=True)
