"""What is told of a body: once, without secrets, by what the ledger says, and of this body only."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from celery import Task, current_task, signals
from celery.app import trace
from celery.loaders.app import AppLoader

from runclaim import RunState
from runclaim.errors import LedgerUnavailable
from runclaim.flows.run.body import Body
from runclaim.flows.run.ending import Ended, Ending
from runclaim.ledger.fence import Claim
from runclaim.tasks.body_request import request_of
from runclaim.tasks.body_task import perform, tracer_of
from runclaim.tasks.handlers import is_hung_on
from tests.harness.shop import Order, Shop, fails, quiet

if TYPE_CHECKING:
    from runclaim import Context
    from tests.tasks.ears import Ears

#: No value of a real one.
TOKEN = "ghp_" + "Can4ry" * 6


def test_the_traceback_of_a_body_is_its_own_whatever_lies_around_it(sqlite_url: str):
    class Around(Task):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    shop = Shop(sqlite_url, Around)
    shop.phase("one", fails("a"), max_attempts=1)
    (run,) = shop.enqueue("a")
    shop.deliver(run)

    assert "in body" in run.view.error["traceback"]
    assert "body_task.py" not in run.view.error["traceback"]


@pytest.mark.parametrize("most, kind", [(1, "failure"), (2, "retry")])
def test_no_secret_that_a_body_was_given_is_told(
    sqlite_url: str,
    ears: Ears,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    kind: str,
):
    """INVARIANT: nobody hears what an attempt has looked up. Breaks if the error is told as the body raised it."""
    monkeypatch.setenv("FORGE_WORD", "sesame-and-poppy")
    around: list[str] = []

    class Hearing(Task):
        def __call__(self, *args, **kwargs):
            try:
                return super().__call__(*args, **kwargs)
            except Exception as error:
                around.append(str(error))
                raise

    def body(ctx: Context[Order]) -> None:
        raise ValueError(ctx.secret("secret:env:FORGE_WORD"))

    shop = Shop(sqlite_url, Hearing)
    shop.phase("one", body, max_attempts=most)
    shop.deliver(*shop.enqueue("a"))

    (told,) = ears.of("failure", "retry")
    assert kind == told[0]
    assert "[redacted: secret:env:FORGE_WORD]" in told[-1]
    assert "sesame" not in f"{told[-1]} {around}"


def test_a_key_that_looks_like_a_secret_is_not_told(sqlite_url: str, ears: Ears):
    shop = Shop(sqlite_url)
    lenient = shop.runs.flow("lenient", Order, key="{name}", allow_secrets=True)
    lenient.phase(name="one")(quiet)
    run = lenient.enqueue(Order(TOKEN))
    task = shop.app.tasks["lenient.one"]
    request = {"id": "message", "task": task.name, "hostname": "node", "delivery_info": {}}
    trace.trace_task(task, "message", (run.id, 0), {}, request, app=shop.app)

    assert run.state is RunState.SUCCEEDED
    assert ["prerun", "success", "postrun"] == [each[0] for each in ears.heard]
    assert not any(TOKEN in each[2] for each in ears.heard)


def test_a_body_whose_run_was_canceled_meanwhile_is_not_told_as_tried_again(sqlite_url: str, ears: Ears):
    shop = Shop(sqlite_url)

    def body(_ctx: Context[Order]) -> None:
        run.cancel(by="ann")
        raise KeyError("a")

    shop.phase("one", body)
    (run,) = shop.enqueue("a")
    shop.deliver(run)

    assert run.state is RunState.CANCELED
    assert [] == ears.of("retry", "success")


def test_a_body_of_a_message_that_came_twice_is_no_second_delivery(sqlite_url: str, ears: Ears):
    """The claim has decided that; Celery and others leave out a task that says so."""
    seen: list[Any] = []
    shop = Shop(sqlite_url, one=lambda _ctx: seen.append(current_task.request.delivery_info))
    (run,) = shop.enqueue("a")
    shop.deliver(run, delivery_info={"redelivered": True, "routing_key": "celery"})

    assert [{"redelivered": False, "routing_key": "celery"}] == seen


def test_an_end_that_could_not_be_recorded_is_tried_once(sqlite_url: str):
    """Breaks if it is taken for a body that never began: its recording, which waits for the ledger, would run again."""
    tries: list[Ending] = []

    class Quiet:
        def run(self) -> Ended:
            return Ended(Ending.SUCCESS, timedelta(0))

        def ended_by(self, error: Exception, ran: timedelta) -> Ended:
            return Ended(Ending.RETRY, ran, exception=error)

    def record(_body: Body, ended: Ended, *, at_once: bool) -> Any:
        tries.append(ended.ending)
        raise LedgerUnavailable("it is away")

    shop = Shop(sqlite_url, one=quiet)
    claim = Claim(
        run_id="01a22138-c828-780d-bda6-991a065a2520",
        fence=1,
        owner="n",
        flow="order",
        key="a",
        subject=None,
        phases=("one",),
        cursor=0,
        phase="one",
        queue=None,
        attempt=1,
        max_attempts=2,
        priority=None,
        input={"name": "a"},
    )
    with pytest.raises(LedgerUnavailable):
        perform(shop.app.tasks["order.one"], Body(claim, Quiet(), record), request_of({}, claim, "t"))  # type: ignore[arg-type]

    assert [Ending.SUCCESS] == tries


def test_a_run_that_a_body_enqueues_with_eager_tasks_runs_the_body_of_its_own(sqlite_url: str):
    """Breaks if a task that is called inside a body is taken for the one that this body is."""
    seen: list[str] = []
    shop = Shop(sqlite_url)
    other = shop.runs.flow("other", Order, key="{name}")
    other.phase(name="only")(lambda ctx: seen.append(f"{ctx.phase} {ctx.input.name}"))

    def body(ctx: Context[Order]) -> None:
        seen.append(f"{ctx.phase} {ctx.input.name}")
        other.enqueue(Order("b"))

    shop.phase("one", body)
    shop.app.conf.task_always_eager = True
    listener = lambda **_told: None  # noqa: E731 - to be disconnected
    # Only the outer of the two is listened to.
    signals.task_prerun.connect(listener, sender=shop.app.tasks["order.one"], weak=False)
    try:
        shop.enqueue("a")
        shop.runs._runtime.broker.flush()
    finally:
        signals.task_prerun.disconnect(listener, sender=shop.app.tasks["order.one"])

    assert ["one a", "only b"] == seen


def test_a_tracer_that_alone_is_wrapped_sees_each_body(sqlite_url: str, monkeypatch: pytest.MonkeyPatch):
    traced: list[tuple[str, str]] = []
    build = trace.build_tracer

    def wrapped(name: str, *args: Any, **kwargs: Any) -> Any:
        tracer = build(name, *args, **kwargs)

        def run(*args: Any) -> Any:
            traced.append((name, args[3]["argsrepr"]))
            return tracer(*args)

        return run

    monkeypatch.setattr(trace, "build_tracer", wrapped)
    shop = Shop(sqlite_url, one=quiet, two=quiet)
    shop.deliver(*shop.enqueue("a", "b"))

    assert [("order.one", "a"), ("order.one", "b"), ("order.two", "a"), ("order.two", "b")] == sorted(traced)


def test_a_tracer_that_is_wrapped_later_is_seen_too(sqlite_url: str):
    task = Shop(sqlite_url, one=quiet).app.tasks["order.one"]
    before = tracer_of(task)
    was_hung_on = is_hung_on(task, before)
    task.__trace__ = partial(before)

    assert [False, True] == [was_hung_on, is_hung_on(task, tracer_of(task))]


def test_a_loader_of_the_application_begins_each_body(sqlite_url: str):
    begun: list[str] = []

    class Loader(AppLoader):
        def on_task_init(self, task_id: str, task: Any) -> None:
            begun.append(task.request.argsrepr)

    shop = Shop(sqlite_url)
    shop.app.loader = Loader(app=shop.app)
    shop.phase("one", quiet)
    shop.phase("two", quiet)
    shop.deliver(*shop.enqueue("a", "b"))

    assert ["a", "a", "b", "b"] == sorted(begun)
