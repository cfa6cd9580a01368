"""Whatever the database does while a finished body is recorded, its result is kept for as long as its lease."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from runclaim import RunState
from runclaim.errors import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.bench import Bench

pytestmark = pytest.mark.postgres


@pytest.fixture
def on_postgres(bench_postgres_url) -> Iterator[Bench]:
    from tests.harness.bench import Bench
    from tests.harness.ledgers import put_away

    made = Bench(bench_postgres_url)
    yield made
    put_away(made)


class Administrator:
    """Somebody else at the database, whose own sessions are always writable."""

    def __init__(self, bench: Bench) -> None:
        self.name = bench.database.url.database
        options = {"options": "-c default_transaction_read_only=off"}
        self.engine = create_engine(bench.database.url, isolation_level="AUTOCOMMIT", connect_args=options)

    def do(self, *statements: str) -> None:
        with self.engine.connect() as conn:
            for statement in statements:
                conn.execute(text(statement.format(database=self.name)))


END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
)
TROUBLES = {
    "read-only": (
        ["ALTER DATABASE {database} SET default_transaction_read_only = on", END_OTHERS],
        ["ALTER DATABASE {database} RESET default_transaction_read_only"],
    ),
    "a table that is moved": (
        ["ALTER TABLE runclaim_phase_results RENAME TO elsewhere"],
        ["ALTER TABLE elsewhere RENAME TO runclaim_phase_results"],
    ),
    "its sessions ended": ([END_OTHERS], []),
    "a changed column": (["ALTER TABLE runclaim_runs ALTER COLUMN attempts TYPE bigint"], []),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_a_body_that_ended_well_is_recorded_once_the_database_takes_it(on_postgres: Bench, name: str):
    """
    INVARIANT: an error of the recording is never the body's.

    Breaks if whatever a commit meets is settled as the attempt's failure: with one attempt the run would fail.
    """
    bench, bodies = on_postgres, []
    begin, end = TROUBLES[name]
    administrator = Administrator(bench)
    timer = threading.Timer(1.5, administrator.do, end)
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def deliver(ctx):
        bodies.append(ctx.attempt)
        administrator.do(*begin)
        timer.start()
        return "done"

    run = flow.enqueue(repo="acme/app", number=7)
    try:
        bench.deliver(flow)
    finally:
        timer.join()
        if name == "a changed column":
            administrator.do("ALTER TABLE runclaim_runs ALTER COLUMN attempts TYPE integer")
        administrator.engine.dispose()

    assert (RunState.SUCCEEDED, "done", [1]) == (run.state, run.result, bodies)
    assert [("deliver", 1, "success", "succeeded")] == bench.diary.lines


def test_a_statement_time_out_while_somebody_holds_the_run_is_waited_out(on_postgres: Bench):
    bench = on_postgres
    administrator = Administrator(bench)
    administrator.do("ALTER DATABASE {database} SET statement_timeout = '300ms'")
    for database in (bench.database, bench.ledger.database):
        database.close()
    flow = bench.flow()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with administrator.engine.connect() as conn:
            conn.execution_options(isolation_level="READ COMMITTED")
            conn.execute(text("SET LOCAL statement_timeout = 0"))
            conn.execute(text("SELECT 1 FROM runclaim_runs FOR UPDATE"))
            held.set()
            done.wait(1.2)

    holder = threading.Thread(target=hold)

    @flow.phase(max_attempts=1)
    def deliver(ctx):
        holder.start()
        assert held.wait(20)
        return "done"

    run = flow.enqueue(repo="acme/app", number=7)
    try:
        bench.deliver(flow)
        holder.join()
    finally:
        administrator.do("ALTER DATABASE {database} RESET statement_timeout")
        administrator.engine.dispose()

    assert (RunState.SUCCEEDED, 1) == (run.state, run.view.attempts)


def test_what_the_database_says_of_a_value_is_raised_and_fails_no_attempt(on_postgres: Bench):
    """Waiting does not help it, and it is not the body's: the lease decides."""
    bench = on_postgres
    administrator = Administrator(bench)
    administrator.do("ALTER TABLE runclaim_phase_results ADD CONSTRAINT test_no CHECK (worker <> 'node:1') NOT VALID")
    flow = bench.flow()
    flow.phase(name="deliver", max_attempts=1)(lambda ctx: "done")
    run = flow.enqueue(repo="acme/app", number=7)
    try:
        with pytest.raises(Exception, match="test_no"):
            bench.deliver(flow)
    finally:
        administrator.do("ALTER TABLE runclaim_phase_results DROP CONSTRAINT test_no")
        administrator.engine.dispose()

    assert (RunState.RUNNING, {}) == (run.state, bench.keeper._watched)
    assert "phase.failed" not in bench.events(run)


def test_a_server_that_is_stopped_in_the_middle_of_a_verb_is_given_up_after_the_patience(private_postgres):
    """
    INVARIANT: no verb takes longer than its patience.

    Breaks if nothing on our side bounds the wait: a stopped server's kernel acknowledges whatever is sent.
    """
    from tests.harness.bench import Bench

    bench = Bench(private_postgres.url, ledger_patience=timedelta(seconds=3))
    flow = bench.flow()
    flow.phase(name="deliver")(lambda ctx: "done")
    first = flow.enqueue(repo="acme/app", number=1)
    private_postgres.pause()
    began = time.monotonic()
    try:
        with pytest.raises(LedgerUnavailable, match="no answer within 3 s"):
            flow.enqueue(repo="acme/app", number=2)
        took = time.monotonic() - began
        with pytest.raises(LedgerUnavailable):
            _ = first.state
    finally:
        private_postgres.resume()

    assert took < 30
    assert flow.enqueue(repo="acme/app", number=2).state is RunState.QUEUED
    bench.close()


@pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning")
def test_a_worker_whose_role_is_refused_does_not_start(postgres_url):
    """A worker that only warned would claim nothing for ever, and say so to nobody."""
    from celery import Celery

    from runclaim import Runclaim, migrations
    from runclaim.database import Database

    database = Database(postgres_url, patience=timedelta(seconds=20))
    migrations.upgrade(database)
    database.close()
    wrong = database.url.set(username="no_such_role").render_as_string(hide_password=False)
    app = Celery(broker="memory://", set_as_current=False)
    runs = Runclaim(app, database_url=wrong, ledger_patience=timedelta(seconds=300))
    began = time.monotonic()
    with pytest.raises(SystemExit, match="this worker cannot start") as ended:
        app.Worker(pool="solo", concurrency=1).start()
    runs.close()
    app.close()

    assert "check the user and the password" in str(ended.value)
    assert time.monotonic() - began < 100
