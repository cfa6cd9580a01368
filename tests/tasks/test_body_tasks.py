"""To the application each body is one Celery task: its Task class, its signals, its request, whatever the message."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from celery import Task, current_task
from celery.app import trace
from sqlalchemy import text

from runclaim import Blocked, RunState
from runclaim.errors import LedgerUnavailable
from runclaim.tasks.body_task import tracer_of
from runclaim.tasks.handlers import is_hung_on
from tests.harness.shop import Order, Shop, fails, listening, quiet

if TYPE_CHECKING:
    from runclaim import Context
    from tests.tasks.ears import Ears


def test_where_nothing_is_hung_on_celerys_tracer_is_around_the_delivery(sqlite_url: str):
    shop = Shop(sqlite_url, one=quiet)

    task = shop.app.tasks["order.one"]

    assert not is_hung_on(task, tracer_of(task))


def test_a_later_phase_that_fails_for_good_is_an_error_in_the_log_where_nobody_listens(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
):
    shop = Shop(sqlite_url, one=quiet)
    shop.phase("two", fails("a"), max_attempts=1)
    with caplog.at_level(logging.INFO):
        shop.deliver(*shop.enqueue("a"))

    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage().startswith("order/two a: failure, attempt 1")
    assert record.exc_info[0] is KeyError


def test_every_body_of_a_group_and_every_inline_phase_is_heard_alone(sqlite_url: str, ears: Ears):
    shop = Shop(sqlite_url, one=quiet, two=fails("b"))
    a, b = shop.enqueue("a", "b")
    shop.deliver(a, b)

    assert [RunState.SUCCEEDED, RunState.QUEUED] == [a.state, b.state]
    assert [
        ("retry", "order.two", "b", "Retry in 0.0s: KeyError('b')"),
        ("success", "order.one", "a", "success"),
        ("success", "order.one", "b", "success"),
        ("success", "order.two", "a", "success"),
    ] == sorted(ears.of("success", "retry", "failure"))
    assert sorted(each[1:3] for each in ears.of("prerun")) == sorted(each[1:3] for each in ears.of("postrun"))
    assert 4 == len(ears.of("prerun"))


def test_the_final_failure_of_a_later_phase_is_heard_by_signal_and_by_the_task_class(sqlite_url: str, ears: Ears):
    """
    INVARIANT: whoever alerts by `task_failure` or `on_failure` hears of every phase that fails for good.

    Breaks if only a delivery's first body is a task to Celery.
    """
    hung: list[tuple[str, str]] = []

    class Alerting(Task):
        def on_failure(self, exc, task_id, args, kwargs, einfo):
            hung.append((self.name, repr(exc)))

    shop = Shop(sqlite_url, Alerting, one=quiet)
    shop.phase("two", fails("a"), max_attempts=1)
    (run,) = shop.enqueue("a")
    shop.deliver(run)

    assert run.state is RunState.FAILED
    assert [("order.two", "KeyError('a')")] == hung
    assert [("failure", "order.two", "a", "'a'")] == ears.of("failure")


def test_a_task_class_alone_hears_of_each_body(sqlite_url: str):
    hung: list[tuple[str, ...]] = []

    class Hearing(Task):
        def before_start(self, task_id, args, kwargs):
            hung.append(("before", self.name, task_id == self.request.id))

        def on_success(self, retval, task_id, args, kwargs):
            hung.append(("success", self.name, retval))

        def on_retry(self, exc, task_id, args, kwargs, einfo):
            hung.append(("retry", self.name, repr(exc)))

        def on_failure(self, exc, task_id, args, kwargs, einfo):
            hung.append(("failure", self.name, repr(exc)))

        def after_return(self, status, retval, task_id, args, kwargs, einfo):
            hung.append(("after", self.name, status))

    shop = Shop(sqlite_url, Hearing, one=quiet, two=fails("a"))
    (run,) = shop.enqueue("a")
    shop.deliver(run)
    shop.deliver(run)

    failed = ("order.two", "KeyError('a')")
    assert [
        ("before", "order.one", True),
        ("success", "order.one", "success"),
        ("after", "order.one", "SUCCESS"),
        ("before", "order.two", True),
        ("retry", *failed),
        ("before", "order.two", True),
        ("failure", *failed),
        ("after", "order.two", "FAILURE"),
    ] == hung


def test_a_context_of_the_task_class_is_each_bodys_own(sqlite_url: str):
    """
    INVARIANT: what one run leaves in the application's context (`flask.g`) no other run and no other phase sees.

    Breaks if several bodies run inside one `Task.__call__`.
    """
    around: ContextVar[dict[str, str] | None] = ContextVar("around", default=None)
    seen: list[str] = []

    class ContextTask(Task):
        def __call__(self, *args, **kwargs):
            token = around.set({})
            try:
                return super().__call__(*args, **kwargs)
            finally:
                around.reset(token)

    def body(ctx: Context[Order]) -> None:
        here = around.get()
        seen.extend(here.values())
        here["data"] = ctx.input.name
        if ctx.input.name.startswith("bad"):
            raise KeyError(ctx.input.name)

    shop = Shop(sqlite_url, ContextTask, one=body, two=body)
    names = [f"{'bad' if n % 4 == 1 else 'good'}{n}" for n in range(60)]
    runs = shop.enqueue(*names)
    shop.deliver(*runs)
    shop.finish(*runs)

    assert [] == seen
    expected = [RunState.FAILED if name.startswith("bad") else RunState.SUCCEEDED for name in names]
    assert expected == [run.state for run in runs]


@pytest.mark.parametrize("kind", ["never", "twice", "refused", "blocked", "before"])
def test_a_task_class_that_does_not_run_the_body_once_completes_nothing_and_runs_nothing_twice(
    sqlite_url: str, kind: str
):
    """INVARIANT: each start of a body is counted. Breaks if a Task class can start one again under the same claim."""
    starts: list[int] = []

    class Odd(Task):
        def before_start(self, task_id, args, kwargs):
            if kind == "before":
                raise PermissionError("not on this machine")

        def __call__(self, *args, **kwargs):
            if kind == "twice":
                try:
                    return super().__call__(*args, **kwargs)
                except KeyError:
                    return super().__call__(*args, **kwargs)
            if kind == "refused":
                raise PermissionError("no tenant")
            if kind == "blocked":
                raise Blocked("a person has to look")
            return None

    def body(ctx: Context[Order]) -> None:
        starts.append(ctx.attempt)
        raise KeyError("fail")

    shop = Shop(sqlite_url, Odd, one=body)
    (run,) = shop.enqueue("a")
    shop.deliver(run)
    shop.finish(run)

    expected = {
        "never": ([], RunState.FAILED, "returned without running the body"),
        "twice": ([1, 2], RunState.FAILED, "KeyError"),
        "refused": ([], RunState.FAILED, "no tenant"),
        "blocked": ([], RunState.BLOCKED, "a person has to look"),
        "before": ([], RunState.FAILED, "not on this machine"),
    }
    assert (starts, run.state) == expected[kind][:2]
    assert expected[kind][2] in str(run.view.error)


def test_nothing_false_is_told_of_a_body_whose_claim_was_lost(sqlite_url: str, ears: Ears):
    shop = Shop(sqlite_url)

    def lose(_ctx: Any) -> None:
        with shop.runs.ledger.database.begin() as conn:
            conn.execute(text("UPDATE runclaim_runs SET fence = fence + 1"))

    shop.phase("one", lose)
    (run,) = shop.enqueue("a")
    shop.deliver(run)

    assert [("prerun", "order.one", "a", ""), ("postrun", "order.one", "a", "IGNORED")] == ears.heard


def test_rows_that_cannot_be_written_with_the_completion_are_told_as_an_error_of_the_task(sqlite_url: str, ears: Ears):
    def body(ctx: Context[Order]) -> None:
        ctx.in_completion(lambda session: session.execute(text("INSERT INTO nowhere VALUES (1)")))

    shop = Shop(sqlite_url)
    shop.phase("one", body, max_attempts=1)
    (run,) = shop.enqueue("a")
    shop.deliver(run)

    assert run.state is RunState.FAILED
    assert ["failure"] == [each[0] for each in ears.of("success", "failure", "retry")]


def test_a_second_delivery_is_told_to_nobody(sqlite_url: str, ears: Ears, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "celery")
    shop = Shop(sqlite_url, one=quiet)
    (run,) = shop.enqueue("a")
    shop.deliver(run)
    before = len(ears.heard)
    task = shop.app.tasks["order.one"]
    told = trace.trace_task(task, "again", (run.id, 0), {}, {"id": "again", "delivery_info": {}}, app=shop.app)

    assert before == len(ears.heard) == 3
    assert "IGNORED" == told.info.state
    assert "Task order.one[again] ignored" in caplog.text


def test_a_ledger_that_is_away_is_one_failed_task(sqlite_url: str, ears: Ears, monkeypatch: pytest.MonkeyPatch):
    shop = Shop(sqlite_url, one=quiet)
    (run,) = shop.enqueue("a")
    named = (run.id, 0)

    def away(*_args: Any, **_kwargs: Any) -> Any:
        raise LedgerUnavailable("it is away")

    monkeypatch.setattr(shop.runs._runtime, "runner", away)
    told = trace.trace_task(shop.app.tasks["order.one"], "m", named, {}, {"id": "m", "delivery_info": {}}, app=shop.app)

    assert "FAILURE" == told.info.state
    assert ["prerun", "failure", "postrun"] == [each[0] for each in ears.heard]


def test_each_body_has_a_request_of_its_own(sqlite_url: str, ears: Ears):
    """Also where nobody listens: see the other half of this test."""
    requests: list[dict[str, Any]] = []

    def body(ctx: Context[Order]) -> None:
        request = current_task.request
        requests.append({"id": request.id, "name": current_task.name, "run": request.args[0], "left": request.retries})
        if ctx.input.name == "b" and ctx.attempt == 1:
            raise KeyError("b")

    shop = Shop(sqlite_url, one=body, two=quiet)
    a, b = shop.enqueue("a", "b")
    shop.deliver(a, b)
    shop.deliver(b, task_id="later")

    assert ["order.one"] * 3 == [each["name"] for each in requests]
    assert [a.id, b.id, b.id] == [each["run"] for each in requests]
    assert [0, 0, 1] == [each["left"] for each in requests]
    assert ("message", "later") == (requests[0]["id"], requests[2]["id"])
    assert 3 == len({each["id"] for each in requests})


def test_each_body_has_a_request_of_its_own_where_nobody_listens(sqlite_url: str):
    seen: list[tuple[str, str, str]] = []

    def body(_ctx: Any) -> None:
        seen.append((current_task.name, current_task.request.id, current_task.request.args[0]))

    shop = Shop(sqlite_url, one=body, two=body)
    a, b = shop.enqueue("a", "b")
    shop.deliver(a, b)

    assert {("order.one", a.id), ("order.one", b.id), ("order.two", a.id), ("order.two", b.id)} == {
        (name, run_id) for name, _, run_id in seen
    }
    assert 4 == len({task_id for _, task_id, _ in seen})
    assert current_task._get_current_object() is None or current_task.name not in {"order.one", "order.two"}


@pytest.mark.parametrize("hung_on", [False, True])
def test_a_context_variable_that_a_body_sets_is_not_the_next_bodys(sqlite_url: str, hung_on: bool):
    left: ContextVar[str] = ContextVar("left", default="")
    seen: list[str] = []

    def body(ctx: Context[Order]) -> None:
        seen.append(left.get())
        left.set(ctx.input.name)

    with listening(**({"prerun": lambda **_told: None} if hung_on else {})):
        shop = Shop(sqlite_url, one=body, two=body)
        shop.deliver(*shop.enqueue("a", "b"))

    assert [""] * 4 == seen


def test_who_wraps_celerys_tracer_sees_each_body(sqlite_url: str, monkeypatch: pytest.MonkeyPatch):
    """As Sentry's integration does: the tracer and the Task class's `__call__` are wrapped when a tracer is built."""
    traced: list[tuple[str, str]] = []
    raised: list[str] = []
    build = trace.build_tracer

    def wrapped(name: str, task: Any, *args: Any, **kwargs: Any) -> Any:
        own = type(task).__call__

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return own(self, *args, **kwargs)
            except Exception as error:
                raised.append(f"{self.name} {type(error).__name__}")
                raise

        if trace.task_has_custom(task, "__call__"):
            type(task).__call__ = call
        tracer = build(name, task, *args, **kwargs)

        def run(*args: Any) -> Any:
            traced.append((name, args[3]["argsrepr"]))
            return tracer(*args)

        return run

    monkeypatch.setattr(trace, "build_tracer", wrapped)
    shop = Shop(sqlite_url, one=quiet)
    shop.phase("two", fails("b"), max_attempts=1)
    a, b = shop.enqueue("a", "b")
    shop.deliver(a, b)
    shop.finish(a, b)

    assert [("order.one", "a"), ("order.one", "b"), ("order.two", "a"), ("order.two", "b")] == sorted(traced)
    assert ["order.two KeyError"] == raised
    assert b.state is RunState.FAILED
