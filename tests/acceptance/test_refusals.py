"""A worker does not start where the promise would be empty, and says what to do; a server that is late it waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

if TYPE_CHECKING:
    from tests.harness import Site


def refused(site: Site, **how) -> str:
    """What a worker says that does not start."""
    process = site.worker(ready=False, **how)
    assert 0 != process.wait(60), process.tail
    assert "ready." not in process.text
    return process.text


@pytest.mark.parametrize(
    "setting, accepted, rest",
    [
        ("accept_content", ["json", "pickle"], ["json"]),
        ("accept_content", ["application/x-python-serialize"], ["json"]),
        ("result_accept_content", ["json", "yaml", "pickle"], ["json", "yaml"]),
    ],
)
def test_a_worker_that_takes_pickle_does_not_start(
    redis_site: Site, setting: str, accepted: list[str], rest: list[str]
):
    redis_site.told["conf"] = {setting: accepted}

    assert (
        "runclaim: this worker cannot start.\n"
        f"  - {setting} accepts pickle: anyone who can write to the broker could run code here."
        f" Set app.conf.{setting} = {rest}\n"
    ) in refused(redis_site, env={"C_FORCE_ROOT": "1"})


@pytest.mark.site(conf={"accept_content": ["json", "msgpack"]})
def test_a_worker_that_takes_another_harmless_content_starts(redis_site: Site):
    run = redis_site.enqueue("x")
    redis_site.worker(pool="solo")

    redis_site.ended(run)


def test_gevent_on_sqlite_does_not_start(redis_site: Site):
    assert (
        "  - the pool is gevent and the ledger is SQLite, which blocks every greenlet while it waits."
        " Use PostgreSQL, or the prefork or threads pool"
    ) in refused(redis_site, pool="gevent")


@pytest.mark.parametrize(
    "revision, why, what_to_do",
    [
        ("0000", "is at revision 0000, but this release needs", "run: runclaim db upgrade"),
        ("9999", "is at revision 9999, newer than this program's", "Upgrade this program"),
    ],
)
def test_a_schema_that_is_too_old_or_too_new_does_not_start(
    postgres_site: Site, revision: str, why: str, what_to_do: str
):
    with postgres_site.database.begin() as conn:
        conn.execute(text("UPDATE runclaim_schema_version SET version_num = :revision"), {"revision": revision})
    told = refused(postgres_site, pool="solo")

    assert "  - the ledger postgresql+psycopg://" in told
    assert why in told
    assert what_to_do in told


def test_a_database_that_is_away_is_waited_for(private_postgres, new_site, valkey_server):
    """A worker that starts before its database is no mistake: it starts, and works once the database is there."""
    settings = {"ledger_patience": "500ms", "dispatch_after": "1s"}
    site = new_site(broker=valkey_server.url, database_url=private_postgres.url, settings=settings)
    run = site.enqueue("x")
    site.database.close()
    site.stage.runs.ledger.database.close()
    private_postgres.stop()
    site.worker(pool="threads")
    private_postgres.start()

    site.ended(run, upkeep=True)
