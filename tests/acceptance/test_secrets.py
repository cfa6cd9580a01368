"""A body whose error holds secrets, in a real worker: who looks at it afterwards sees none."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect, text

from runclaim import RunState
from tests.harness import Site, until
from tests.harness.bodies import TOKEN

if TYPE_CHECKING:
    from runclaim.database import Database

#: Looks like none.
VALUE = "swordfish"
REFERENCE = "secret:env:CANARY"


def dump(database: Database) -> str:
    """Every value of every row of every table, as text."""
    with database.read() as conn:
        tables = inspect(conn).get_table_names()
        return "\n".join(repr(tuple(row)) for name in tables for row in conn.execute(text(f"SELECT * FROM {name}")))


def shown(address: str) -> str:
    """All that Flower tells of tasks."""
    with urllib.request.urlopen(f"{address}/api/tasks?limit=1000", timeout=10) as answer:
        return json.dumps(json.load(answer))


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.site(phases={"first": {"max_attempts": 2}, "second": {"max_attempts": 2}})
def test_no_secret_of_an_error_is_in_the_log_in_flower_or_in_the_database(redis_site: Site, pool: str):
    """
    INVARIANT: what runclaim, Celery and Flower tell of an error holds no secret; neither does the ledger.

    Breaks if Celery is given the error itself: it logs, sends and stores it by ways of its own.
    """
    site = redis_site
    address = site.flower()
    worker = site.worker(pool=pool, concurrency=1, events=True, env={"CANARY": VALUE}, options=["-l", "DEBUG"])
    first, later = site.enqueue("1", first=f"leak {REFERENCE}"), site.enqueue("2", second=f"leak {REFERENCE}")
    site.ended(first, later, state=RunState.FAILED, upkeep=True)

    marks = [f"[redacted: {REFERENCE}]", "[redacted: GitHub token]"]
    until(lambda: shown(address).count("FAILURE") >= 2, "both failures in Flower", so_far=lambda: shown(address))
    log = worker.said("steps/second 2: failure")
    for told in (log, shown(address), dump(site.database)):
        assert [] == [secret for secret in (VALUE, TOKEN) if secret in told]
        assert [] == [mark for mark in marks if mark not in told]


@pytest.mark.site(allow_secrets=True)
def test_a_key_that_may_hold_a_secret_shows_none_in_the_log_or_in_flower(redis_site: Site):
    site = redis_site
    address = site.flower()
    worker = site.worker(pool="threads", concurrency=1, events=True)
    site.ended(site.enqueue(TOKEN))

    until(lambda: shown(address).count("SUCCESS") >= 3, "three phases in Flower", so_far=lambda: shown(address))
    for told in (worker.said("steps/third"), shown(address)):
        assert TOKEN not in told
        assert "[redacted: GitHub token]" in told
