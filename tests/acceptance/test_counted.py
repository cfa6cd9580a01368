"""Counted with real processes: what twenty runs of three short phases cost the broker and PostgreSQL."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import redis
from sqlalchemy import create_engine, make_url, text

from tests.harness import Site, until

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS = 20


@pytest.fixture
def statistics(postgres_url: str, postgres_server: str) -> Iterator[Any]:
    """What PostgreSQL counts about the ledger's database, asked from another one so as not to count itself."""
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    name = make_url(postgres_url).database

    def ask() -> tuple[int, int]:
        with engine.connect() as conn:
            until(
                lambda: conn.execute(
                    text(
                        "SELECT count(*) = 0 FROM pg_stat_activity"
                        " WHERE datname = :name AND backend_type = 'client backend'"
                    ),
                    {"name": name},
                ).scalar_one(),
                "the end of every connection to the ledger: it tells what it counted when it ends",
            )
            asked = text("SELECT xact_commit, xact_rollback FROM pg_stat_database WHERE datname = :name")
            row = conn.execute(asked, {"name": name}).one()
            return row.xact_commit, row.xact_rollback

    yield ask
    engine.dispose()


def sent(site: Site) -> Counter[str]:
    """How many messages (LPUSH) and events (PUBLISH) the broker was sent, by anybody, since it started."""
    with redis.Redis.from_url(site.told["broker"]) as client:
        told = client.info("commandstats")
    return Counter({name: told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("lpush", "publish")})


def rest(site: Site) -> None:
    """Close this process's connections to the ledger."""
    site.database.close()
    site.stage.runs.ledger.database.close()


def test_a_run_costs_one_message_and_at_most_five_commits(postgres_site: Site, statistics):
    """
    INVARIANT: a run of three short phases costs one broker message and five commits, all processes together.

    Counted: every COMMIT that PostgreSQL saw on the ledger's database, by whomever, over twenty runs (the start of the
    worker and the server's own housekeeping included, for which five are allowed in all), and every LPUSH. Not
    counted: reads, which end in a ROLLBACK and wait for nothing.
    """
    site = postgres_site
    site.enqueue("warm")
    rest(site)
    commits, _ = statistics()
    before = sent(site)
    runs = [site.enqueue(f"run{n}") for n in range(RUNS)]
    worker = site.worker(pool="threads", concurrency=2)
    site.ended(*runs)
    messages = sent(site) - before
    worker.stop()
    rest(site)

    # And nobody listens, so no task event is sent.
    assert messages == {"lpush": RUNS}
    # The run that warmed up is completed by this worker too: its claim and its three completions.
    assert 5 * RUNS <= statistics()[0] - commits <= 5 * RUNS + 4 + 5
    assert len(site.rows()) == 3 * (RUNS + 1)
