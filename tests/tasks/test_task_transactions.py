"""A transaction that the application's Task class has around a task is around one body."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from celery import Task
from sqlalchemy import create_engine, text

from runclaim import RunState
from tests.harness.shop import Order, Shop, listening, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from runclaim import Context
    from tests.tasks.ears import Ears


def test_a_session_that_postrun_removes_is_no_other_bodys(sqlite_url: str):
    """A failed body leaves its session broken (SQLAlchemy's PendingRollbackError); postrun removes it, for each."""
    broken: list[str] = []

    def body(ctx: Context[Order]) -> None:
        if broken:
            raise RuntimeError(f"the session of {broken[0]} is broken")
        if ctx.input.name == "bad":
            broken.append("bad")
            raise KeyError("bad")

    with listening(postrun=lambda **_told: broken.clear()):
        shop = Shop(sqlite_url, one=body)
        runs = shop.enqueue("good1", "bad", "good2", "good3")
        shop.deliver(*runs)

        assert [RunState.SUCCEEDED, RunState.QUEUED, RunState.SUCCEEDED, RunState.SUCCEEDED] == [r.state for r in runs]


#: The application's open transaction: bodies find it by where they run, whichever task opened it.
transaction: ContextVar[Connection] = ContextVar("transaction")


@pytest.fixture
def transacted(tmp_path: Path) -> Iterator[tuple[type[Task[Any, Any]], Callable[[], list[str]]]]:
    """A Task class with one transaction around the task, and what it has committed."""
    engine = create_engine(f"sqlite:///{tmp_path / 'application.db'}")
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE written (phase TEXT)"))

    class InTransaction(Task):
        def __call__(self, *args, **kwargs):
            with engine.begin() as conn:
                token = transaction.set(conn)
                try:
                    return super().__call__(*args, **kwargs)
                finally:
                    transaction.reset(token)

    def rows() -> list[str]:
        with engine.connect() as conn:
            return list(conn.execute(text("SELECT phase FROM written")).scalars())

    yield InTransaction, rows
    engine.dispose()


def writes(name: str, then: Callable[[], None] = lambda: None) -> Callable[[Context[Order]], None]:
    def body(_ctx: Context[Order]) -> None:
        transaction.get().execute(text("INSERT INTO written VALUES (:name)"), {"name": name})
        then()

    return body


def test_a_complete_phases_rows_are_there_whatever_ends_the_next_phase(sqlite_url: str, transacted: Any):
    """
    INVARIANT: a transaction of the Task class is committed before its phase is complete, and a failed one never.

    Breaks if a completion is recorded inside `__call__`, or two bodies share one.
    """
    task_class, rows = transacted
    shop = Shop(sqlite_url, task_class, one=writes("one"))
    shop.phase("two", writes("two", lambda: sys.exit(3)))
    (run,) = shop.enqueue("a")
    with pytest.raises(SystemExit):
        shop.deliver(run)

    assert ["one"] == rows()
    assert "one" in run.results


def test_rows_of_a_failed_phase_are_not_committed(sqlite_url: str, transacted: Any):
    """
    INVARIANT: what a body has written in the Task class's transaction goes when that body fails.

    Breaks if a phase that follows inline runs inside the transaction of the one before, which commits.
    """

    def fail() -> None:
        raise KeyError("fail")

    task_class, rows = transacted
    shop = Shop(sqlite_url, task_class, one=writes("one"), two=writes("two", fail))
    (run,) = shop.enqueue("a")
    shop.deliver(run)
    shop.finish(run)

    assert run.state is RunState.FAILED
    assert ["one"] == rows()


def test_with_eager_tasks_each_body_is_a_task_too(sqlite_url: str, transacted: Any, ears: Ears):
    """Breaks if the Task class's transaction of one phase is open while that of the next writes (SQLite waits)."""
    task_class, rows = transacted
    shop = Shop(sqlite_url, task_class, one=writes("one"), two=writes("two"))
    shop.app.conf.task_always_eager = True
    (run,) = shop.enqueue("a")
    shop.runs._runtime.broker.flush()

    assert run.state is RunState.SUCCEEDED
    assert ["one", "two"] == rows()
    assert [("success", "order.one", "a", "success"), ("success", "order.two", "a", "success")] == ears.of("success")


def test_a_phase_whose_transaction_does_not_commit_is_not_complete(sqlite_url: str):
    class Uncommitted(Task):
        def __call__(self, *args, **kwargs):
            super().__call__(*args, **kwargs)
            raise ConnectionError("the COMMIT had no answer")

    shop = Shop(sqlite_url, Uncommitted, one=quiet)
    (run,) = shop.enqueue("a")
    shop.deliver(run)
    shop.finish(run)

    assert run.state is RunState.FAILED
    assert "COMMIT had no answer" in str(run.view.error)
