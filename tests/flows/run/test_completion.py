"""`ctx.in_completion`: the application's rows commit with the completion or not at all, whatever its functions do."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from runclaim import Backoff, Blocked, Retry, RunState, Skip
from runclaim.errors import ClaimLost, InputError, LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy.orm import Session

    from runclaim import Run
    from tests.harness.bench import Bench

AT_ONCE = Backoff(first=timedelta(0), jitter=False)


@pytest.fixture(autouse=True)
def told(bench: Bench) -> None:
    bench.execute("CREATE TABLE told (what TEXT PRIMARY KEY)")


def tell(what: str) -> Callable[[Session], Any]:
    return lambda session: session.execute(text("INSERT INTO told VALUES (:what)"), {"what": what})


def all_told(bench: Bench) -> list[str]:
    with bench.database.read() as conn:
        return sorted(conn.execute(text("SELECT what FROM told")).scalars())


def attempted(bench: Bench, *writes: Callable[[Session], Any], max_attempts: int = 1) -> Run:
    """A run whose only phase hands over these functions, delivered until nothing is due."""
    flow = bench.flow()

    @flow.phase(max_attempts=max_attempts, backoff=AT_ONCE)
    def deliver(ctx):
        for write in writes:
            ctx.in_completion(write)
        return "done"

    run = flow.enqueue(repo="acme/app", number=7)
    bench.finish(flow, run)
    return run


def test_rows_commit_with_the_completion(bench: Bench):
    run = attempted(bench, tell("a"), tell("b"))

    assert (RunState.SUCCEEDED, ["a", "b"]) == (run.state, all_told(bench))


def test_functions_run_in_order_and_see_each_others_rows(bench: Bench):
    seen: list[int] = []
    count = lambda session: seen.append(session.execute(text("SELECT COUNT(*) FROM told")).scalar_one())  # noqa: E731
    attempted(bench, count, tell("a"), count)

    assert [0, 1] == seen


def test_a_skipped_phase_writes_its_rows_too(bench: Bench):
    flow = bench.flow()

    @flow.phase
    def deliver(ctx):
        ctx.in_completion(tell("skipped"))
        raise Skip("nothing more")

    flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert ["skipped"] == all_told(bench)


@pytest.mark.parametrize("error", [ValueError, Retry])
def test_a_body_that_raises_writes_nothing(bench: Bench, error):
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def deliver(ctx):
        ctx.in_completion(tell("a"))
        raise error

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert (RunState.FAILED, []) == (run.state, all_told(bench))


def test_a_function_that_raises_fails_its_own_attempt_and_takes_all_rows_back(bench: Bench):
    """
    INVARIANT: a completion has all of its rows or there is none.

    Breaks if an error in a function is swallowed, or the functions before it are committed apart.
    """
    failing = [True, False]

    def fail_once(session: Session) -> None:
        if failing.pop(0):
            raise ValueError("the application's own mistake")

    run = attempted(bench, tell("a"), fail_once, tell("b"), max_attempts=2)

    assert (RunState.SUCCEEDED, ["a", "b"]) == (run.state, all_told(bench))
    assert [("deliver", 1, "retry", "queued"), ("deliver", 2, "success", "succeeded")] == bench.diary.lines


def test_a_constraint_of_the_application_fails_the_attempt(bench: Bench):
    run = attempted(bench, tell("a"), tell("a"), max_attempts=2)

    assert (RunState.FAILED, "IntegrityError", []) == (run.state, run.view.error["type"], all_told(bench))


def test_rows_of_a_lost_claim_are_rolled_back(bench: Bench):
    """
    INVARIANT: a claim that was lost while its body ran commits nothing.

    Breaks if the rows are committed before the CAS, or a CAS that matched nothing does not roll back.
    """
    flow = bench.flow()

    @flow.phase
    def deliver(ctx):
        ctx.in_completion(tell(f"attempt {ctx.attempt}"))
        if ctx.attempt == 1:
            bench.execute("UPDATE runclaim_runs SET fence = fence + 1, owner = 'somebody else'")

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert [("deliver", 1, "claimlost", None)] == bench.diary.lines
    assert (RunState.RUNNING, [], {}) == (run.state, all_told(bench), run.results)


def test_a_commit_inside_a_function_does_not_end_the_ledgers_transaction(bench: Bench):
    """
    INVARIANT: the rows are committed by the ledger, with the completion.

    Breaks if the session that functions are given owns the transaction: its commit would make rows last whose
    completion is refused.
    """
    flow = bench.flow()

    def commits(session: Session) -> None:
        tell("a")(session)
        session.commit()
        tell("b")(session)

    @flow.phase
    def deliver(ctx):
        ctx.in_completion(commits)
        bench.execute("UPDATE runclaim_runs SET owner = 'somebody else'")

    flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert ([("deliver", 1, "claimlost", None)], []) == (bench.diary.lines, all_told(bench))


def test_a_commit_inside_a_function_keeps_its_rows_when_the_completion_stands(bench: Bench):
    def commits(session: Session) -> None:
        tell("a")(session)
        session.commit()

    run = attempted(bench, commits, tell("b"))

    assert (RunState.SUCCEEDED, ["a", "b"]) == (run.state, all_told(bench))


def test_a_rollback_inside_a_function_is_an_error_that_says_what_to_do(bench: Bench):
    run = attempted(bench, tell("a"), lambda session: session.rollback(), tell("b"))

    assert (RunState.FAILED, []) == (run.state, all_told(bench))
    assert (
        "a function handed to ctx.in_completion rolled back its session, and the completion with it;"
        " use `with session.begin_nested():` around what may fail"
    ) == run.view.error["message"]


def test_a_savepoint_inside_a_function_may_fail(bench: Bench):
    def careful(session: Session) -> None:
        savepoint = session.begin_nested()
        tell("a")(session)
        savepoint.rollback()
        tell("b")(session)

    run = attempted(bench, careful)

    assert (RunState.SUCCEEDED, ["b"]) == (run.state, all_told(bench))


def test_closing_the_session_inside_a_function_breaks_nothing(bench: Bench):
    def closes(session: Session) -> None:
        tell("a")(session)
        session.close()

    run = attempted(bench, closes, tell("b"))

    assert (RunState.SUCCEEDED, ["a", "b"]) == (run.state, all_told(bench))


def test_something_that_is_no_function_is_refused_in_the_body(bench: Bench):
    run = attempted(bench, "INSERT INTO told")  # type: ignore[arg-type]

    assert ("in_completion takes a function of a session, not 'INSERT INTO told'; pass a lambda") == run.view.error[
        "message"
    ]


def test_a_database_that_asks_for_a_retry_gets_one_and_the_rows_come_once(bench: Bench, tmp_path: Path):
    another = tmp_path / "another.db"
    tries: list[int] = []

    def busy_once(session: Session) -> None:
        tries.append(1)
        tell(f"try {len(tries)}")(session)
        if len(tries) > 1:
            return
        if bench.database.url.get_backend_name() == "postgresql":
            session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))
        with contextlib.closing(sqlite3.connect(another, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            engine = create_engine(f"sqlite:///{another}", connect_args={"timeout": 0})
            with engine.connect() as conn:
                conn.exec_driver_sql("CREATE TABLE t (a)")

    run = attempted(bench, busy_once)

    assert (RunState.SUCCEEDED, ["try 2"], 1) == (run.state, all_told(bench), run.view.attempts)


def raises(error: BaseException) -> Callable[[Session], Any]:
    def write(session: Session) -> None:
        tell("taken back")(session)
        raise error

    return write


@pytest.mark.parametrize(
    "error, state, line",
    [
        (Blocked("not enough in stock"), RunState.BLOCKED, ("deliver", 1, "blocked", "blocked")),
        (InputError("mug", "is unknown"), RunState.FAILED, ("deliver", 1, "failure", "failed")),
        (Retry(after=timedelta(hours=1)), RunState.QUEUED, ("deliver", 1, "retry", "queued")),
        (Skip("told already"), RunState.SUCCEEDED, ("deliver", 1, "skipped", "succeeded")),
        # Of another ledger, or a call of another run: an error as any.
        (LedgerUnavailable("another one"), RunState.QUEUED, ("deliver", 1, "retry", "queued")),
        (
            ClaimLost("0195c0de-0000-7000-8000-000000000007", "work", 1),
            RunState.QUEUED,
            ("deliver", 1, "retry", "queued"),
        ),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else "",
)
def test_what_a_function_raises_means_what_it_means_in_a_body(bench: Bench, error, state, line):
    """
    INVARIANT: a function of the completion ends its attempt as its body would have.

    Breaks if an outcome is taken for an error that is tried again.
    """
    flow = bench.flow()

    @flow.phase(max_attempts=3, backoff=Backoff(first=timedelta(minutes=1), jitter=False))
    def deliver(ctx):
        ctx.in_completion(raises(error))
        return "done"

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert (run.state, all_told(bench), bench.diary.lines) == (state, [], [line])


def test_a_retry_of_a_function_waits_as_long_as_it_says(bench: Bench):
    flow = bench.flow()

    @flow.phase(max_attempts=3, backoff=AT_ONCE)
    def deliver(ctx):
        ctx.in_completion(raises(Retry(after=timedelta(days=2))))

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    bench.finish(flow, run)

    # With the phase's own backoff it would have been due at once.
    assert (RunState.QUEUED, [("deliver", 1, "retry", "queued")]) == (run.state, bench.diary.lines)


def test_a_lost_claim_of_another_run_is_an_error_of_the_body_that_raised_it(bench: Bench):
    """
    INVARIANT: an attempt is settled unless its own claim is lost.

    Breaks if any ClaimLost, such as a plain call's inside the body, is taken for the phase's own.
    """
    flow = bench.flow()

    @flow.phase(max_attempts=1)
    def deliver(ctx):
        raise ClaimLost("0195c0de-0000-7000-8000-000000000007", "work", 1)

    run = flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert (RunState.FAILED, "ClaimLost") == (run.state, run.view.error["type"])


@pytest.mark.parametrize(
    "ends, words",
    [
        (lambda session: session.connection().commit(), "committed the session's connection"),
        (lambda session: session.execute(text("COMMIT")), "executed COMMIT"),
        (lambda session: session.connection().exec_driver_sql("  end;"), "executed END"),
        (lambda session: session.execute(text("ROLLBACK")), "executed ROLLBACK"),
    ],
)
def test_nobody_but_the_ledger_ends_its_transaction(bench: Bench, ends, words):
    """
    INVARIANT: rows last only with their completion.

    Breaks if a commit below the session is let through: its rows would last once per attempt.
    """

    def commits(session: Session) -> None:
        tell("early")(session)
        ends(session)

    run = attempted(bench, commits, raises(ValueError("too late")), max_attempts=2)

    assert (RunState.FAILED, []) == (run.state, all_told(bench))
    assert words in run.view.error["message"]
    assert "the ledger commits" in run.view.error["message"]


def test_a_commit_that_was_refused_and_caught_completes_nothing(bench: Bench):
    def stubborn(session: Session) -> None:
        tell("early")(session)
        with contextlib.suppress(Exception):
            session.connection().commit()

    run = attempted(bench, stubborn)

    assert (RunState.FAILED, []) == (run.state, all_told(bench))


def test_a_caught_error_of_the_database_is_an_error_that_says_what_to_do(bench: Bench):
    """On PostgreSQL the transaction takes nothing more; on SQLite it goes on."""

    def careless(session: Session) -> None:
        with contextlib.suppress(Exception):
            session.connection().exec_driver_sql("INSERT INTO no_such_table VALUES (1)")

    run = attempted(bench, careless, tell("b"))
    on_sqlite = bench.database.url.get_backend_name() == "sqlite"

    assert run.state is (RunState.SUCCEEDED if on_sqlite else RunState.FAILED)
    assert on_sqlite or "caught a database error and continued" in run.view.error["message"]


DEFERRED = "CREATE TABLE deferred (of_whom TEXT REFERENCES told (what) DEFERRABLE INITIALLY DEFERRED)"


def test_a_deferred_constraint_that_speaks_at_the_commit_is_an_error_of_its_attempt(bench: Bench):
    """
    INVARIANT: what the application's rows break is an error of their attempt, whenever the database says so.

    Breaks if only what a function itself raises is: the run would stand until its lease lapses, and start again.
    """
    bench.execute(DEFERRED)
    dangling = lambda session: session.execute(text("INSERT INTO deferred VALUES ('nobody')"))  # noqa: E731
    run = attempted(bench, dangling, max_attempts=2)
    error = run.view.error["type"]
    bench.execute("DROP TABLE deferred")

    assert (RunState.FAILED, "IntegrityError", 2) == (run.state, error, run.view.attempts)
