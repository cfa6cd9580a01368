"""What the application puts into a task's headers where a run is enqueued is in the request of each of its bodies."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from celery import Task, current_task, signals
from kombu import Queue

from runclaim import RunState
from runclaim.errors import InputError
from runclaim.flows.client.run_source import RunSource
from tests.harness.shop import Order, Shop, listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim import Context, Run

tenant: ContextVar[str | None] = ContextVar("tenant", default=None)


@pytest.fixture
def sent_with_tenant() -> Iterator[None]:
    """The application's own receiver: the tenant of the context goes into the headers."""

    def put(headers: Any = None, **_told: Any) -> None:
        if tenant.get() is not None:
            headers["tenant"] = tenant.get()

    signals.before_task_publish.connect(put, weak=False)
    yield
    signals.before_task_publish.disconnect(put)


@contextmanager
def acting_as(name: str) -> Iterator[None]:
    token = tenant.set(name)
    try:
        yield
    finally:
        tenant.reset(token)


def enqueued_by(shop: Shop, *names: str) -> list[Run]:
    runs = []
    for name in names:
        with acting_as(name):
            runs += shop.enqueue(name)
    return runs


@pytest.mark.parametrize("listened", [True, False])
def test_each_body_of_a_group_each_phase_and_each_attempt_has_its_enqueuers_headers(
    sqlite_url: str, sent_with_tenant: None, listened: bool
):
    """
    INVARIANT: a run never runs as another tenant, nor as none.

    Breaks if a body takes the headers of the message that it came by: whoever rang, dispatched or retried wrote them.
    """
    seen: list[tuple[str, str, int, str]] = []
    taken: ContextVar[str] = ContextVar("taken", default="nobody")

    def body(ctx: Context[Order]) -> None:
        as_whom = taken.get() if listened else current_task.request.get("tenant")
        seen.append((ctx.input.name, ctx.phase, ctx.attempt, as_whom))
        assert {"tenant": as_whom} == current_task.request.headers
        if ctx.attempt == 1 and ctx.phase == "two":
            raise KeyError("again")

    def take(task: Any = None, **_told: Any) -> None:
        taken.set(task.request.get("tenant"))

    with listening(**({"prerun": take} if listened else {})):
        shop = Shop(sqlite_url, one=body, two=body)
        runs = enqueued_by(shop, "emil", "fred", "gert")
        shop.deliver(*runs, tenant="whoever rang")
        shop.finish(*runs)

    assert [RunState.SUCCEEDED] * 3 == [run.state for run in runs]
    assert 9 == len(seen)
    assert [] == [each for each in seen if each[0] != each[3]]


def test_a_run_that_nobody_in_particular_enqueued_runs_as_nobody(sqlite_url: str, sent_with_tenant: None):
    seen: list[Any] = []
    shop = Shop(sqlite_url, one=lambda _ctx: seen.append(current_task.request.get("tenant")))
    (run,) = shop.enqueue("a")
    shop.deliver(run, tenant="whoever rang")

    assert [None] == seen


def test_a_rerun_by_a_person_has_the_headers_of_the_run(sqlite_url: str, sent_with_tenant: None):
    shop = Shop(sqlite_url, one=lambda _ctx: None)
    (run,) = enqueued_by(shop, "emil")

    assert {"tenant": "emil"} == run.rerun(by="ann").view.headers


def test_a_rerun_through_a_door_without_the_application_has_them_too(sqlite_url: str, sent_with_tenant: None):
    shop = Shop(sqlite_url, one=lambda _ctx: None)
    (run,) = enqueued_by(shop, "emil")

    known = RunSource.registered(shop.flow.described(shop.runs.ledger.config), shop.runs.ledger)

    assert {"tenant": "emil"} == known.rerun_of(run.view).headers


def test_what_an_apply_async_of_the_task_class_adds_travels_too_and_is_called_once_a_run(sqlite_url: str):
    """As tenant-schemas-celery does it, and with a lock by the task's arguments, as celery-singleton's."""
    locks: list[tuple[Any, ...]] = []
    seen: list[tuple[str, str]] = []

    class TenantTask(Task):
        def apply_async(self, args=None, kwargs=None, **options):
            if tuple(args) in locks:
                return None
            locks.append(tuple(args))
            headers = (options.pop("headers", None) or {}) | {"_schema_name": tenant.get()}
            return super().apply_async(args, kwargs, headers=headers, **options)

    def body(ctx: Context[Order]) -> None:
        seen.append((ctx.input.name, current_task.request.get("_schema_name")))

    shop = Shop(sqlite_url, TenantTask, one=body)
    emil, fred = enqueued_by(shop, "emil", "fred")
    sent = shop.sent()
    shop.deliver(emil, fred)

    assert [(emil.id, 0), (fred.id, 0)] == locks
    assert {emil.id, fred.id} <= set(sent)
    assert [("emil", "emil"), ("fred", "fred")] == seen


def test_of_an_apply_async_that_sends_twice_the_first_headers_are_the_runs(sqlite_url: str):
    class Copying(Task):
        def apply_async(self, args=None, kwargs=None, **options):
            headers = {"tenant": tenant.get()}
            sent = super().apply_async(args, kwargs, headers=headers, **options)
            super().apply_async(args, kwargs, headers=headers | {"copy": "for the audit"}, **options)
            return sent

    shop = Shop(sqlite_url, Copying, one=lambda _ctx: None)
    (run,) = enqueued_by(shop, "emil")

    assert {"tenant": "emil"} == run.view.headers


def test_a_phase_whose_queue_is_missing_refuses_no_enqueue_though_its_headers_cannot_be_told(
    sqlite_url: str, sent_with_tenant: None
):
    shop = Shop(sqlite_url)
    shop.app.conf.update(task_create_missing_queues=False, task_queues=[Queue("celery")])
    shop.phase("one", lambda _ctx: None, queue="nowhere")
    (run,) = enqueued_by(shop, "emil")

    assert (RunState.QUEUED, {}) == (run.state, run.view.headers)


def test_a_task_class_that_refuses_to_send_refuses_the_enqueue_and_nothing_is_written(sqlite_url: str):
    class Strict(Task):
        def apply_async(self, args=None, kwargs=None, **options):
            raise PermissionError("no tenant")

    shop = Shop(sqlite_url, Strict, one=lambda _ctx: None)
    with pytest.raises(PermissionError):
        shop.enqueue("a")

    assert shop.flow.find("a") is None


@pytest.mark.parametrize(
    "value, problem",
    [("x" * 9000, "bytes"), (object(), "not JSON"), ("ghp_" + "Can4ry" * 6, "secret")],
)
def test_headers_that_the_ledger_cannot_keep_are_refused(
    sqlite_url: str, sent_with_tenant: None, value: Any, problem: str
):
    shop = Shop(sqlite_url, one=lambda _ctx: None)
    with pytest.raises(InputError, match=problem) as refused, acting_as(value):
        shop.enqueue("a")

    assert refused.value.field in {"headers", "tenant"}


def test_where_nobody_watches_what_is_sent_no_headers_are_kept(sqlite_url: str, monkeypatch: pytest.MonkeyPatch):
    for signal in (signals.before_task_publish, signals.after_task_publish):
        monkeypatch.setattr(signal, "receivers", [])  # other tests of this process may have left some
    shop = Shop(sqlite_url, one=lambda _ctx: None)

    assert [None] == [run.view.headers for run in shop.enqueue("a")]


def test_a_dispatched_run_has_its_enqueuers_headers(sqlite_url: str, sent_with_tenant: None):
    seen: list[Any] = []
    shop = Shop(sqlite_url, one=lambda _ctx: seen.append(current_task.request.get("tenant")))
    (run,) = enqueued_by(shop, "emil")
    with acting_as("the dispatcher"):
        shop.runs._runtime.dispatch()
        shop.deliver(run, tenant="the dispatcher")

    assert ["emil"] == seen
