"""Counted, not timed: the messages and commits of a run, and what a duplicate costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis
from sqlalchemy import create_engine, text

from runclaim.ledger.dispatch import Due
from tests.harness import Site, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from runclaim import Run
    from runclaim.servers import Server
    from tests.acceptance.conftest import MakeSite

#: No upkeep in between: what is counted belongs to the run.
_QUIET = {"rescue_every": "1h", "dispatch_every": "1h", "dispatch_after": "1h"}


@pytest.fixture
def observer(private_postgres: Server) -> Iterator[Engine]:
    """A PostgreSQL of this test's own, so that whatever it counts is this test's."""
    engine = create_engine(private_postgres.url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def site(new_site: MakeSite, valkey_server: Server, observer: Engine) -> Site:
    """One worker that has already run something: its connections and schema checks are behind it."""
    url = observer.url.render_as_string(hide_password=False)
    made = new_site(broker=valkey_server.url, database_url=url, settings=_QUIET)
    made.worker(concurrency=1, events=True).said(" ready.")
    made.ended(made.enqueue("warm"))
    return made


def writing_commits(engine: Engine) -> int:
    """
    How many transactions that write the server has begun.

    PostgreSQL gives a number to each transaction that writes or locks a row, and to no other; one without a number
    commits without a flush. Unlike the statistics views this is exact at once.
    """
    with engine.connect() as conn:
        return int(conn.execute(text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")).scalar_one())


def pushed(url: str) -> int:
    """How many messages were ever pushed to a list of the broker."""
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])


def whole_row(engine: Engine, run: Run) -> Any:
    """The run's row with the version PostgreSQL gives it: any write or lock would change it."""
    with engine.connect() as conn:
        asked = text("SELECT xmin, xmax, ctid, runclaim_runs.* FROM runclaim_runs WHERE id = :id")
        return conn.execute(asked, {"id": run.id}).one()


def deliver_again(site: Site, run: Run) -> None:
    """One more message for the run's first phase."""
    site.stage.runs.ledger.publisher.publish([Due(run.id, 0, "steps", "first", None, "once", 0)])


def test_a_run_of_three_short_phases_costs_one_message(site: Site, valkey_server: Server):
    """
    INVARIANT: phases of one queue follow each other inside one delivery.

    Breaks if a completion publishes the next phase although it could claim it.
    """
    before = pushed(valkey_server.url)
    run = site.enqueue("counted")
    site.ended(run)

    assert 1 == pushed(valkey_server.url) - before
    assert [("counted", "first"), ("counted", "second"), ("counted", "third")] == site.rows(run)


def test_a_run_of_three_short_phases_takes_five_commits(site: Site, observer: Engine):
    """
    INVARIANT: enqueue, claim, and one commit for each phase, which also claims the next.

    Breaks if the journal, a heartbeat or the next claim takes a transaction of its own.
    """
    before = writing_commits(observer)
    site.ended(site.enqueue("counted"))

    assert 5 == writing_commits(observer) - before


def test_a_duplicate_delivery_changes_no_row_and_waits_for_no_flush(site: Site, observer: Engine):
    """
    INVARIANT: refusing a message writes nothing of the run; it is counted in the background.

    Breaks if the claim locks rows that it does not take, or counts its refusals in its own transaction.
    """
    run = site.enqueue("once")
    site.ended(run)
    deliver_again(site, run)
    until(lambda: site.counter("duplicates_refused") == 1, "the first refusal in the totals", so_far=site.story)
    row, before = whole_row(observer, run), writing_commits(observer)
    for _ in range(20):
        deliver_again(site, run)
    site.processes[0].said(" ignored", times=21)
    until(lambda: site.counter("duplicates_refused") == 21, "all refusals in the totals", so_far=site.story)

    assert row == whole_row(observer, run)
    # The totals are written every few seconds, whatever the number of refusals; twice if that fell in between.
    assert writing_commits(observer) - before <= 2
