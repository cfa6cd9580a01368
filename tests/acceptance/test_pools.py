"""The whole way on every pool, both kinds of broker and both databases: each phase completes once, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runclaim import RunState

if TYPE_CHECKING:
    from tests.acceptance.conftest import MakeSite

PHASES = ["first", "second", "third"]
#: Every pool, every broker and every database at least twice, and what people run most.
CELLS = [
    ("prefork", "valkey_server", "postgres_url"),
    ("prefork", "valkey_server", "sqlite_url"),
    ("prefork", "rabbitmq_url", "sqlite_url"),
    ("threads", "rabbitmq_url", "postgres_url"),
    ("threads", "valkey_server", "sqlite_url"),
    ("solo", "valkey_server", "postgres_url"),
    ("gevent", "valkey_server", "postgres_url"),
]
MARKS = {
    "valkey_server": pytest.mark.redis,
    "rabbitmq_url": pytest.mark.rabbitmq,
    "postgres_url": pytest.mark.postgres,
    "sqlite_url": (),
}


def name(cell: tuple[str, ...]) -> str:
    return "-".join(part.split("_")[0] for part in cell)


@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, id=name(cell), marks=[MARKS[part] for part in cell[1:] if MARKS[part]]) for cell in CELLS],
)
def test_every_phase_completes_once_though_every_message_comes_three_times(
    cell: tuple[str, str, str], request: pytest.FixtureRequest, new_site: MakeSite
):
    """
    INVARIANT: on every pool, broker and database, runs end, phases complete once and in order, and none is lost.

    Breaks if a message starts a phase that is claimed or complete, or if a failed attempt is not dispatched again.
    """
    pool, broker, database = cell
    server = request.getfixturevalue(broker)
    site = new_site(broker=getattr(server, "url", server), database_url=request.getfixturevalue(database))
    runs = [site.enqueue(f"run{n}", second="fail 1" if n % 3 == 0 else "pass") for n in range(6)]
    blocked = site.enqueue("blocked", third="block")
    skipped = site.enqueue("skipped", second="skip")
    for run in (*runs, blocked, skipped):
        site.publish(run, times=2)
    worker = site.worker(pool=pool, quiet=pool != "prefork")
    site.ended(*runs, skipped, upkeep=True)
    site.ended(blocked, state=RunState.BLOCKED, upkeep=True)
    site.open("blocked", "third")
    blocked.resume()
    site.ended(blocked)
    assert 0 == worker.stop()

    for run in (*runs, blocked):
        assert [(run.view.key, phase) for phase in PHASES] == site.rows(run)
    assert [("skipped", "first"), ("skipped", "third")] == site.rows(skipped)
    assert [2 if n % 3 == 0 else 1 for n in range(6)] == [len(site.starts(run, "second")) for run in runs]
    assert site.counter("duplicates_refused") >= 2 * 8
