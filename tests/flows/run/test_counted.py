"""Counted, not timed: what a run of three short phases and a message that comes again cost the database."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event, text

from runclaim import RunState, migrations
from runclaim.database import Database
from runclaim.flows.run.ending import Ending
from runclaim.flows.run.lease_keeper import Keeper
from tests.harness.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runclaim.flows.flow import Flow
    from runclaim.ledger.dispatch import Due


@contextmanager
def counted(*engines: Engine) -> Iterator[dict[str, int]]:
    """How often each thing happens on these engines while this is entered."""
    found = {"commits": 0, "rollbacks": 0, "statements": 0}

    def listener(what: str) -> Any:
        def note(*_args: Any) -> None:
            found[what] += 1

        return note

    heard = [
        (engine, name, listener(what))
        for engine in engines
        for name, what in (
            ("commit", "commits"),
            ("rollback", "rollbacks"),
            ("before_cursor_execute", "statements"),
        )
    ]
    for engine, name, note in heard:
        event.listen(engine, name, note)
    yield found
    for engine, name, note in heard:
        event.remove(engine, name, note)


@pytest.fixture
def review(bench: Bench) -> Flow:
    flow = bench.flow()
    first = flow.phase(name="plan")(lambda ctx: [ctx.input.base])
    flow.phase(name="deliver")(lambda ctx: len(ctx.result(first)))
    flow.phase(name="compound")(lambda ctx: ctx.key)
    # The schema is checked once a process; that is no cost of a run.
    bench.deliver(flow, ring(bench, flow, number=0))
    return flow


def ring(bench: Bench, flow: Flow, *, number: int) -> Due:
    flow.enqueue(repo="acme/app", number=number)
    return bench.rung.pop()


def test_a_run_of_three_phases_costs_one_message_and_five_commits(bench: Bench, review):
    """
    INVARIANT: enqueue, claim and three completions: one commit each, and nothing else.

    Breaks if the next phase is claimed in a transaction of its own, goes through the broker, or its result is read.
    """
    with counted(bench.database.engine, bench.ledger.database.engine) as cost:
        run = review.enqueue(repo="acme/app", number=7)
        messages = len(bench.rung)
        bench.deliver(review)
        messages += len(bench.rung)

    assert run.state is RunState.SUCCEEDED
    assert 1 == messages
    assert {"commits": 5, "rollbacks": 0} == {"commits": cost["commits"], "rollbacks": cost["rollbacks"]}
    # SQLite's BEGIN counts as one here, PostgreSQL's does not.
    assert cost["statements"] <= 20


def test_the_applications_rows_cost_no_commit_of_their_own(bench: Bench):
    flow = bench.flow()
    bench.execute("CREATE TABLE told (what TEXT)")

    @flow.phase
    def deliver(ctx):
        for _ in range(3):
            ctx.in_completion(lambda session: session.execute(text("INSERT INTO told VALUES ('row')")))

    bench.deliver(flow, ring(bench, flow, number=0))
    with counted(bench.database.engine, bench.ledger.database.engine) as cost:
        bench.deliver(flow, ring(bench, flow, number=1))

    assert (3, 6) == (cost["commits"], bench.count("told"))


def everything(bench: Bench) -> list[Any]:
    """Every row of the ledger but the counters; on PostgreSQL with the place and the writer of each version."""
    hidden = "xmin::text, ctid::text, " if bench.database.url.get_backend_name() == "postgresql" else ""
    tables = ("runs", "run_keys", "phase_results", "events", "subjects")
    with bench.database.read() as conn:
        rows = [conn.execute(text(f"SELECT {hidden} * FROM runclaim_{table}")).all() for table in tables]
    return [[str(row) for row in sorted(map(str, found))] for found in rows]


@pytest.mark.parametrize("standing", ["running", "queued for later", "blocked", "succeeded", "canceled", "missing"])
def test_a_message_that_comes_again_changes_no_row(bench: Bench, standing: str):
    """
    INVARIANT: a refused delivery leaves every row of its run as it was, to the version.

    Breaks if a refusal is written into the run, or the claim touches a row that it does not take.
    """
    flow = bench.flow()
    before: list[Any] = []
    flow.phase(name="plan")(lambda ctx: None)

    @flow.phase
    def deliver(ctx):
        if standing == "running":
            before.extend(refuse(bench, flow, message))
        raise_for(standing)

    message = ring(bench, flow, number=7)
    bench.deliver(flow, message)
    if standing == "canceled":
        flow.get(message.run_id).cancel()
    if standing == "missing":
        bench.execute("DELETE FROM runclaim_runs")
    if standing != "running":
        before.extend(refuse(bench, flow, message))

    assert before[0] == before[1]
    assert {("duplicates_refused", "review"): 3} == bench.totals()


def raise_for(standing: str) -> None:
    from datetime import timedelta

    from runclaim import Blocked, Retry

    if standing == "blocked":
        raise Blocked("a person")
    if standing in {"queued for later", "canceled"}:
        raise Retry("later", after=timedelta(hours=1))


def refuse(bench: Bench, flow: Flow, message: Due) -> list[Any]:
    """The ledger before and after a message came three times more."""
    seen = everything(bench)
    endings = [bench.deliver(flow, message).ending for _ in range(3)]
    assert [Ending.DUPLICATE] * 3 == endings
    return [seen, everything(bench)]


def flushes(conn: Any) -> tuple[int, str]:
    """How often anybody waited for the log to reach the disk, and where the log ends."""
    new = conn.execute(text("SELECT current_setting('server_version_num')::int >= 180000")).scalar_one()
    asked = (
        "SELECT COALESCE(SUM(fsyncs), 0)::bigint FROM pg_stat_io"
        " WHERE object = 'wal' AND backend_type = 'client backend'"
        if new
        else "SELECT wal_sync FROM pg_stat_wal"
    )
    conn.execute(text("SELECT pg_stat_force_next_flush()"))
    many = conn.execute(text(asked)).scalar_one()
    return many, conn.execute(text("SELECT pg_current_wal_insert_lsn()::text")).scalar_one()


def test_a_message_that_comes_again_waits_for_no_flush(private_postgres, tmp_path: Path):
    """
    INVARIANT: a refusal writes nothing to the log, so its commit waits for no disk.

    Breaks if a refusal is recorded before it is answered; the counters are written by the keeper, later.
    """
    bench = Bench(private_postgres.url)
    elsewhere = Database(f"sqlite:///{tmp_path}/elsewhere.db", patience=bench.config.ledger_patience)
    migrations.upgrade(elsewhere)
    bench.keeper = Keeper(elsewhere)
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    message = ring(bench, flow, number=7)
    bench.deliver(flow, message)
    watcher = Database(private_postgres.url, pool_size=1, patience=bench.config.ledger_patience)
    changes = []
    # The server's own housekeeping may write in between, so the best of a few looks counts; a refusal that writes
    # writes in each of them.
    for _ in range(5):
        before = watcher.run(flushes)
        for _ in range(10):
            assert bench.deliver(flow, message).ending is Ending.DUPLICATE
        bench.database.close()  # what a connection counted is known when it has ended
        changes.append((before, watcher.run(flushes)))

    assert any(before == after for before, after in changes), changes
    bench.keeper.close()  # its thread would go on looking for its file
    for database in (watcher, bench.keeper._database, bench.database, bench.ledger.database):
        database.close()
