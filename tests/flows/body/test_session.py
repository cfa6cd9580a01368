"""Enqueuing in the application's own transaction: the run is made with its rows, or not at all, and rung for after."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session, scoped_session

from runclaim import KeyConflict, RunState
from runclaim.errors import InputError, NotCommitted, SchemaBehind
from tests.harness.bench import Bench, PullRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runclaim.flows.flow import Flow


@pytest.fixture
def review(bench: Bench) -> Flow[PullRequest]:
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    bench.execute("CREATE TABLE orders (name TEXT PRIMARY KEY)")
    return flow


@pytest.fixture
def db(bench: Bench) -> Iterator[Session]:
    """A session of the application's, on an engine of its own with its driver's defaults."""
    engine = create_engine(bench.config.database_url)
    if engine.dialect.name == "sqlite":
        # What SQLAlchemy's documentation tells applications on SQLite that use savepoints.
        event.listen(engine, "connect", lambda raw, _record: setattr(raw, "isolation_level", None))
        event.listen(engine, "begin", lambda conn: conn.exec_driver_sql("BEGIN"))
    with Session(engine) as session:
        yield session
    engine.dispose()


def order(db: Session, name: str) -> None:
    db.execute(text("INSERT INTO orders VALUES (:name)"), {"name": name})


def test_a_run_is_made_with_the_applications_rows_and_rung_for_after_their_commit(bench: Bench, review, db):
    order(db, "a")
    run = review.enqueue(repo="acme/app", number=7, session=db)

    assert [True, []] == [run.created, bench.rung]
    assert 0 == bench.count("orders")
    db.commit()
    assert [run.id] == [due.run_id for due in bench.rung]
    assert [1, RunState.QUEUED] == [bench.count("orders"), run.state]


def test_a_session_that_commits_again_rings_only_once(bench: Bench, review, db):
    review.enqueue(repo="acme/app", number=7, session=db)
    db.commit()
    order(db, "a")
    db.commit()
    review.enqueue(repo="acme/app", number=8, session=db)
    db.commit()

    assert ["acme/app:pr-7", "acme/app:pr-8"] == [due.key for due in bench.rung]


@pytest.mark.parametrize("how", ["rollback", "close", "an error"])
def test_a_transaction_that_does_not_commit_makes_no_run(bench: Bench, review, db, how):
    order(db, "a")
    review.enqueue(repo="acme/app", number=7, session=db)
    if how == "an error":
        with pytest.raises(Exception, match=r"(?i)unique"):
            order(db, "a")
    db.close() if how == "close" else db.rollback()
    order(db, "b")
    db.commit()

    assert [0, 0, []] == [bench.count("runclaim_runs"), bench.count("runclaim_run_keys"), bench.rung]
    assert 1 == bench.count("orders")


def test_a_savepoint_that_rolls_back_takes_its_run_with_it(bench: Bench, review, db):
    """
    INVARIANT: nobody is told of a run that does not exist.

    Breaks if the ring waits for the outermost commit alone.
    """
    order(db, "a")
    savepoint = db.begin_nested()
    review.enqueue(repo="acme/app", number=7, session=db)
    savepoint.rollback()
    kept = review.enqueue(repo="acme/app", number=8, session=db)
    db.commit()

    assert [kept.id] == [due.run_id for due in bench.rung]
    assert 1 == bench.count("runclaim_runs")


def test_a_savepoint_that_is_kept_rings_after_the_whole_commit(bench: Bench, review, db):
    with db.begin_nested(), db.begin_nested():
        review.enqueue(repo="acme/app", number=7, session=db)

    assert [] == bench.rung
    db.commit()
    assert ["acme/app:pr-7"] == [due.key for due in bench.rung]


def test_a_kept_savepoint_of_a_session_that_is_closed_is_gone_too(bench: Bench, review, db):
    with db.begin_nested():
        review.enqueue(repo="acme/app", number=7, session=db)
    db.close()

    assert [[], 0] == [bench.rung, bench.count("runclaim_runs")]


def test_a_kept_savepoint_inside_one_that_rolls_back_is_gone_too(bench: Bench, review, db):
    outer = db.begin_nested()
    with db.begin_nested():
        review.enqueue(repo="acme/app", number=7, session=db)
    outer.rollback()
    db.commit()

    assert [[], 0] == [bench.rung, bench.count("runclaim_runs")]


def test_many_runs_join_one_transaction(bench: Bench, review, db):
    runs = review.enqueue_many([PullRequest("acme/app", n) for n in (1, 2, 3)], session=db)
    db.commit()

    assert sorted(run.id for run in runs) == sorted(due.run_id for due in bench.rung)


def test_a_conflict_that_the_application_survives_leaves_no_trace(bench: Bench, review, db):
    """
    INVARIANT: a key without a run is never committed.

    Breaks if a batch that meets a conflict leaves behind the keys it had taken: their runs could never be made.
    """
    review.enqueue(repo="acme/app", number=2)
    bench.rung.clear()
    with pytest.raises(KeyConflict):
        review.enqueue_many([PullRequest("acme/app", n, head="other") for n in (1, 2, 3)], session=db)
    order(db, "a")
    db.commit()

    assert [1, 1, []] == [bench.count("runclaim_run_keys"), bench.count("runclaim_runs"), bench.rung]
    assert review.enqueue(repo="acme/app", number=1, session=db).created


def test_a_run_that_exists_is_found_in_the_transaction_too(bench: Bench, review, db):
    first = review.enqueue(repo="acme/app", number=7)
    again = review.enqueue(repo="acme/app", number=7, session=db)
    db.commit()

    assert [(False, first.id), 1] == [(again.created, again.id), len(bench.rung)]


def test_a_silent_broker_is_no_error_of_the_commit(bench: Bench, review, db):
    bench.rung.silent = True
    run = review.enqueue(repo="acme/app", number=7, session=db)
    db.commit()

    assert run.state is RunState.QUEUED


def test_a_session_on_another_kind_of_database_is_refused(laptop: Bench, postgres_url: str):
    flow = laptop.flow()
    flow.phase(name="plan")(lambda ctx: None)
    engine = create_engine(postgres_url)

    with Session(engine) as db, pytest.raises(InputError) as refused:
        flow.enqueue(repo="acme/app", number=7, session=db)
    engine.dispose()
    assert (
        f"session: is on {postgres_url}, and the ledger is {laptop.database}: the session leads to postgresql, and"
        " workers would never see the run. Set RUNCLAIM_DATABASE_URL to the session's database, or enqueue without"
        " session="
    ) == str(refused.value)


def test_a_ledger_without_tables_is_refused_before_the_session_is_used(postgres_url: str, tmp_path: Path):
    bench = Bench(f"sqlite:///{tmp_path}/made.db")
    bench.config = type(bench.config)(database_url=postgres_url)
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    engine = create_engine(postgres_url)

    with (
        Session(engine) as db,
        pytest.raises(SchemaBehind, match=r"has no runclaim tables, .* run: runclaim db upgrade"),
    ):
        flow.enqueue(repo="acme/app", number=7, session=db)
    engine.dispose()
    bench.ledger._database.close()


def test_a_scoped_session_stands_for_the_session_of_its_thread(bench: Bench, review, db):
    scoped = scoped_session(lambda: db)
    review.enqueue(repo="acme/app", number=7, session=scoped)
    scoped.commit()

    assert ["acme/app:pr-7"] == [due.key for due in bench.rung]


def test_what_is_no_session_is_refused(bench: Bench, review, db):
    with pytest.raises(InputError) as refused:
        review.enqueue(repo="acme/app", number=7, session=db.connection())
    assert "session: is a Connection; pass a Session, or an AsyncSession to aenqueue" == str(refused.value)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_an_engine_with_the_drivers_own_transactions_is_good_enough(laptop: Bench, ending):
    flow = laptop.flow()
    flow.phase(name="plan")(lambda ctx: None)
    engine = create_engine(laptop.config.database_url)
    with Session(engine) as db:
        flow.enqueue(repo="acme/app", number=7, session=db)
        getattr(db, ending)()
    engine.dispose()

    assert (1 if ending == "commit" else 0) == laptop.count("runclaim_runs") == len(laptop.rung)


ASKED = {
    "view": lambda run: run.view,
    "state": lambda run: run.state,
    "phases": lambda run: run.phases,
    "result": lambda run: run.result,
    "events": lambda run: run.events,
    "wait": lambda run: run.wait(),
    "cancel": lambda run: run.cancel(),
    "retry": lambda run: run.retry(),
    "resume": lambda run: run.resume(),
    "signal": lambda run: run.signal("go"),
    "rerun": lambda run: run.rerun(),
}


@pytest.fixture
def elsewhere(postgres_url: str) -> Iterator[Bench]:
    """A ledger that answers while another transaction is open."""
    made = Bench(postgres_url)
    yield made
    made.close()


@pytest.mark.parametrize("how", ASKED)
def test_a_handle_says_that_its_run_is_not_committed_yet(elsewhere: Bench, how: str):
    flow = elsewhere.flow()
    flow.phase(name="plan")(lambda ctx: None)
    engine = create_engine(elsewhere.config.database_url)
    with Session(engine) as session:
        run = flow.enqueue(repo="acme/app", number=7, session=session)
        with pytest.raises(NotCommitted, match="is not committed yet: its transaction has to commit first"):
            ASKED[how](run)
        session.rollback()
        with pytest.raises(NotCommitted, match="was rolled back with its transaction"):
            ASKED[how](run)
        committed = flow.enqueue(repo="acme/app", number=7, session=session)
        session.commit()
    engine.dispose()

    assert RunState.QUEUED is committed.state


def test_a_run_whose_savepoint_was_rolled_back_is_said_to_be_gone(bench: Bench, review, db):
    with contextlib.suppress(ZeroDivisionError), db.begin_nested():
        run = review.enqueue(repo="acme/app", number=7, session=db)
        raise ZeroDivisionError
    db.commit()

    with pytest.raises(NotCommitted, match="was rolled back with its transaction"):
        _ = run.state
