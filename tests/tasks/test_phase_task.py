"""The Celery task of a phase: made when Celery makes the application's own, and routed as Celery routes those."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, current_task, exceptions, signals
from celery.worker.request import Request
from kombu import Connection, Consumer, Producer, Queue
from sqlalchemy import text

from runclaim import Context, Runclaim, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runclaim.flows.flow import Flow


@dataclass(frozen=True)
class Order:
    number: int


@dataclass
class Shop:
    app: Celery
    runs: Runclaim
    order: Flow[Order]


@pytest.fixture
def new_shop(sqlite_url: str) -> Iterator[Callable[..., Shop]]:
    """An application with a flow of two phases; everything runs where it is enqueued."""
    made: list[Shop] = []

    def make(**how: Any) -> Shop:
        app = Celery("shop", broker="memory://", set_as_current=False, **how)
        app.conf.task_always_eager = True
        runs = Runclaim(app, database_url=sqlite_url)
        order = runs.flow("order", Order, key="{number}")

        @order.phase
        def one(ctx: Context[Order]) -> str:
            return "one"

        @order.phase
        def two(ctx: Context[Order]) -> str:
            return "two"

        made.append(Shop(app, runs, order))
        return made[-1]

    yield make
    for shop in made:
        shop.runs.close()
        shop.app.close()


def own() -> None:
    """Task of the application's."""


class ContextTask(Task):
    """As Flask's documentation has it."""


def test_a_task_class_that_a_factory_sets_later_is_the_phases_too(new_shop: Callable[..., Shop]):
    """
    INVARIANT: a phase is made on the Task class that the application's own tasks are made on.

    Breaks if the class is looked up when the phase is declared.
    """
    shop = new_shop()
    shop.app.task(own, name="own", shared=False)
    shop.app.Task = ContextTask

    assert isinstance(shop.app.tasks["order.one"], ContextTask)
    assert isinstance(shop.app.tasks["own"], ContextTask)


BASE = """
from celery import Task
import shop_of_test
assert shop_of_test.shop
class BaseTask(Task):
    pass
"""


def test_a_task_class_whose_module_imports_the_application_is_no_circle(
    new_shop: Callable[..., Shop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "base_of_test.py").write_text(BASE)
    (tmp_path / "shop_of_test.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    shop = new_shop(task_cls="base_of_test:BaseTask")
    assert "base_of_test" not in sys.modules
    import shop_of_test

    shop_of_test.shop = shop

    assert ["Task", "BaseTask"] == [each.__name__ for each in type(shop.app.tasks["order.one"]).__mro__][1:3]


class OwnRequest(Request):
    """An application's own."""


class OwnTask(Task):
    Request = OwnRequest


@pytest.mark.parametrize("name", ["order.one", "runclaim.rescue", "runclaim.deliver"])
def test_the_applications_own_request_class_is_built_upon(new_shop: Callable[..., Shop], name: str):
    shop = new_shop(task_cls=OwnTask)

    assert issubclass(shop.app.tasks[name].Request, OwnRequest)


def request_with_limits(task: Any) -> Request:
    """The request that a worker makes of a message of this task with limits in its headers."""
    with Connection("memory://") as connection:
        headers = {"id": "1", "task": task.name, "timelimit": [1, 1], "lang": "py"}
        Producer(connection).publish([[], {}, {}], headers=headers, routing_key=task.name, declare=[Queue(task.name)])
        messages: list[Any] = []
        with Consumer(connection, [Queue(task.name)], on_message=messages.append, accept=["json"]):
            connection.drain_events(timeout=5)
    kind: Any = task.Request if isinstance(task.Request, type) else Request
    return kind(messages[0], app=task.app, task=task)


@pytest.mark.parametrize(
    "name, limits",
    [("order.one", (None, None)), ("runclaim.deliver", (None, None)), ("own", [1, 1])],
)
def test_the_time_limit_that_a_message_brings_is_heeded_for_tasks_of_the_application_only(
    new_shop: Callable[..., Shop], name: str, limits: Any
):
    """
    INVARIANT: who can write to the broker cannot have the body of a run killed by a header of a message.

    Breaks if Celery's request takes its limits from the message.
    """
    shop = new_shop()
    shop.app.task(own, name="own", shared=False)

    assert request_with_limits(shop.app.tasks[name]).time_limits == limits


def test_a_limit_that_remote_control_has_set_is_the_requests(new_shop: Callable[..., Shop]):
    task = new_shop().app.tasks["order.one"]
    task.time_limit, task.soft_time_limit = 9, 5

    assert (9, 5) == request_with_limits(task).time_limits


def by_argument(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
    return {"queue": f"{task.app.main}-{args[0][:1]}"} if name.startswith("order.") else None


def by_nothing(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
    raise LookupError("this router knows no phases")


@pytest.mark.parametrize("router", [by_argument, by_nothing])
def test_a_router_of_the_application_may_look_at_arguments_and_task_and_may_raise(
    new_shop: Callable[..., Shop], router: Any
):
    """
    INVARIANT: whatever a router does, the claim of a phase and its body are not held up by it.

    Breaks if it is asked with less than Celery gives it, or if what it raises ends the delivery.
    """
    shop = new_shop()
    shop.app.conf.task_routes = [router]
    run = shop.order.enqueue(number=1)

    assert (RunState.SUCCEEDED, {"one": "one", "two": "two"}) == (run.state, run.results)


class Retrying(Task):
    autoretry_for = (ValueError,)
    retry_kwargs = {"max_retries": 5}  # noqa: RUF012 - as Celery's documentation has it


@pytest.mark.parametrize("name", ["order.one", "runclaim.rescue"])
def test_celery_does_not_retry_what_the_ledger_retries(new_shop: Callable[..., Shop], name: str):
    task = new_shop(task_cls=Retrying).app.tasks[name]

    assert ((), False) == (task.autoretry_for, hasattr(task, "_orig_run"))


def by_method(countdown: float) -> None:
    current_task.retry(countdown=countdown, exc=ValueError("later"))


def by_class(error: Exception) -> None:
    raise error


SOON = datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize(
    "leave, state, waits",
    [
        (partial(by_class, exceptions.Ignore()), RunState.SUCCEEDED, None),
        (partial(by_class, exceptions.Reject("broken", requeue=False)), RunState.BLOCKED, None),
        (partial(by_class, exceptions.Reject("later", requeue=True)), RunState.QUEUED, 0),
        (partial(by_class, exceptions.Retry("later", when=3600)), RunState.QUEUED, 3500),
        (partial(by_class, exceptions.Retry("later", when=SOON)), RunState.QUEUED, 3000),
        (partial(by_method, 3600), RunState.QUEUED, 3500),
    ],
)
def test_celerys_own_ways_to_leave_a_task_mean_what_they_say(
    new_shop: Callable[..., Shop], leave: Callable[[], None], state: RunState, waits: int | None
):
    """
    INVARIANT: a body that leaves by Celery's words burns no more attempts than it asks for, and sends no message.

    Breaks if they count as any error: Ignore would be tried until the budget is spent, a countdown would be forgotten.
    """
    shop = new_shop()
    sent: list[Any] = []

    @shop.runs.flow("leaving", Order, key="{number}").phase
    def body(ctx: Context[Order]) -> None:
        leave()

    def published(**how: Any) -> None:
        sent.append(how)

    signals.before_task_publish.connect(published)
    try:
        run = shop.runs.flows["leaving"].enqueue(number=1)
    finally:
        signals.before_task_publish.disconnect(published)

    waited = text("SELECT (available_at - enqueued_at) / 1000000 FROM runclaim_runs WHERE flow = 'leaving'")
    seconds = shop.runs.ledger.database.ask(lambda conn: conn.execute(waited).scalar_one())
    assert (run.state, sent) == (state, [])
    assert waits is None or (1 == run.view.attempts and seconds >= waits)
