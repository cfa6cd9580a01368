"""A broker that is down, stopped or gone holds up nobody who enqueues, and loses no run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from runclaim import RunState

if TYPE_CHECKING:
    from tests.acceptance.conftest import MakeSite

#: Less than two time-outs of two seconds: a caller waits for one. The rest is for a slow machine.
MOST = 3.9
REDIS, RABBITMQ = pytest.mark.redis, pytest.mark.rabbitmq


@pytest.mark.parametrize(
    "broker, how, connected",
    [
        pytest.param("valkey_server", "stopped", True, marks=REDIS, id="Redis stopped"),
        pytest.param("valkey_server", "stopped", False, marks=REDIS, id="Redis stopped before the first connection"),
        pytest.param("valkey_server", "killed", True, marks=REDIS, id="Redis killed"),
        pytest.param("private_rabbitmq", "killed", False, marks=RABBITMQ, id="RabbitMQ down from the start"),
        pytest.param("private_rabbitmq", "stopped", True, marks=RABBITMQ, id="RabbitMQ stopped"),
    ],
)
def test_enqueue_returns_in_time_and_the_run_is_executed_later(
    broker: str, how: str, connected: bool, request: pytest.FixtureRequest, new_site: MakeSite, sqlite_url: str
):
    """
    INVARIANT: a run that was enqueued while nobody could hear of it runs, and its caller never waited for the broker.

    Breaks if publishing has no time-out, tries again and again, or its failure is raised to the caller.
    """
    server = request.getfixturevalue(broker)
    site = new_site(broker=server.url, database_url=sqlite_url, settings={"dispatch_after": "1s"})
    site.stage.runs.ledger.require_schema()
    runs = [site.enqueue("before")] if connected else []
    hurt, heal = (server.pause, server.resume) if how == "stopped" else (server.kill, server.start)
    hurt()
    seconds = []
    for name in ("first", "second"):
        began = time.monotonic()
        runs.append(site.enqueue(name))
        seconds.append(time.monotonic() - began)
    assert [RunState.QUEUED, RunState.QUEUED] == [run.state for run in runs[-2:]]

    heal()
    site.worker(pool="threads")
    site.ended(*runs, upkeep=True)
    assert max(seconds) < MOST
    assert 3 * len(runs) == len(site.rows())


def test_the_warning_says_once_where_the_runs_are(valkey_server, new_site: MakeSite, sqlite_url: str, caplog):
    site = new_site(broker=valkey_server.url, database_url=sqlite_url)
    valkey_server.kill()
    site.enqueue("x")
    site.enqueue("y")

    (warning,) = [record.message for record in caplog.records if record.name == "runclaim.broker"]
    assert warning.startswith("the broker does not answer (")
    assert warning.endswith(
        f"; runs queued in the ledger instead: 1. A beat on the ledger {sqlite_url} will dispatch them"
    )
