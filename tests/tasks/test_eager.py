"""Eager mode, as people test with it: every body has run in the caller, when `enqueue` returns."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from runclaim import Backoff, Context, Runclaim, RunState
from runclaim.errors import RunFailed, WaitInBody, WaitTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim.flows.flow import Flow


@dataclass(frozen=True)
class Order:
    number: int
    then: int = 0


class Shop:
    """An eager application without any broker. `threads` are those that ran a body."""

    def __init__(self, url: str, **conf: Any) -> None:
        self.app = Celery("shop", broker="redis://127.0.0.1:1/0", set_as_current=False)
        self.app.conf.update(task_always_eager=True, **conf)
        self.runs = Runclaim(self.app, database_url=url)
        self.threads: set[threading.Thread] = set()
        self.order: Flow[Order] = self.runs.flow("order", Order, key="{number}")

        @self.order.phase(max_attempts=2, backoff=Backoff(first=timedelta(hours=1)))
        def one(ctx: Context[Order]) -> int:
            self.threads.add(threading.current_thread())
            if ctx.input.number < 0:
                raise ValueError("a number below zero")
            if ctx.input.then:
                child = self.order.enqueue(number=ctx.input.number + 1, then=ctx.input.then - 1)
                assert child.state is RunState.SUCCEEDED
            return ctx.input.number

        @self.order.phase(name="two")
        def two(ctx: Context[Order]) -> int:
            return ctx.result(one) * 2


@pytest.fixture
def shop(sqlite_url: str, request: pytest.FixtureRequest) -> Iterator[Shop]:
    made = Shop(sqlite_url, **getattr(request, "param", {}))
    yield made
    made.runs.close()
    made.app.close()


def test_runs_enqueued_one_after_the_other_have_each_ended_when_enqueue_returns(shop: Shop):
    """
    INVARIANT: in eager mode nothing happens in another thread, or later.

    Breaks if what is enqueued soon after another waits for company, as it does with a broker.
    """
    states = [shop.order.enqueue(number=number).state for number in range(5)]

    assert [RunState.SUCCEEDED] * 5 == states
    assert {threading.current_thread()} == shop.threads


def test_a_run_that_a_body_enqueues_has_ended_when_its_enqueue_returns(shop: Shop):
    """However deep: what would hold a connection for each of them would have run out of them."""
    run = shop.order.enqueue(number=1, then=12)

    assert (RunState.SUCCEEDED, 2) == (run.state, run.result)
    assert {threading.current_thread()} == shop.threads


def test_many_at_once_have_all_ended(shop: Shop):
    runs = shop.order.enqueue_many([Order(number) for number in range(4)])

    assert [0, 2, 4, 6] == [run.result for run in runs]


def test_a_run_in_a_session_has_ended_when_the_commit_returns(shop: Shop, sqlite_url: str):
    shop.runs.ledger.require_schema()
    engine = create_engine(sqlite_url)
    with Session(engine) as session:
        first, second = (shop.order.enqueue(number=number, session=session) for number in (1, 2))
        session.commit()
    engine.dispose()

    assert [RunState.SUCCEEDED] * 2 == [first.state, second.state]
    assert {threading.current_thread()} == shop.threads


@pytest.mark.parametrize("shop", [{"task_eager_propagates": True}, {}], indirect=True)
def test_what_a_body_raises_is_the_runs_and_not_the_callers(shop: Shop):
    """With a broker it could not be the caller's either, so a test sees what production does; `wait` says it."""
    run = shop.order.enqueue(number=-1)

    assert (RunState.QUEUED, 1) == (run.state, run.view.attempts)
    with pytest.raises(
        WaitTimeout, match=r"is still queued after 0.01 s; its last attempt: ValueError: a number below"
    ):
        run.wait(timeout=timedelta(seconds=0.01))
    assert shop.order.enqueue(number=1).state is RunState.SUCCEEDED


def test_the_last_attempt_fails_the_run_and_still_raises_nothing_in_enqueue(shop: Shop):
    @shop.runs.flow("strict", Order, key="{number}").phase(max_attempts=1)
    def check(ctx: Context[Order]) -> None:
        raise ValueError("no")

    shop.app.conf.task_eager_propagates = True
    run = shop.runs.flows["strict"].enqueue(number=1)

    with pytest.raises(RunFailed, match="ValueError: no"):
        run.wait()


def test_waiting_ends_also_while_the_clock_is_frozen(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    run = shop.order.enqueue(number=-1)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)

    with pytest.raises(WaitTimeout):
        run.wait(timeout=timedelta(seconds=0.05))


def test_a_body_does_not_wait_for_a_run(shop: Shop):
    """As Celery refuses `get()` in a task: with one slot it would wait for itself."""
    other = shop.order.enqueue(number=1)
    refused: list[WaitInBody] = []

    @shop.runs.flow("waiting", Order, key="{number}").phase
    def wait(ctx: Context[Order]) -> None:
        try:
            other.wait()
        except WaitInBody as error:
            refused.append(error)

    assert shop.runs.flows["waiting"].enqueue(number=1).state is RunState.SUCCEEDED
    assert [f"the body of waiting.wait waits for run {other.id},"] == [
        str(each).partition(" which")[0] for each in refused
    ]
    assert 2 == other.wait()


def test_an_asynchronous_caller_finds_it_ended_too(shop: Shop, sqlite_url: str):
    pytest.importorskip("aiosqlite")

    async def enqueue() -> RunState:
        engine = create_async_engine(sqlite_url.replace("sqlite:", "sqlite+aiosqlite:"))
        async with AsyncSession(engine) as session:
            run = await shop.order.aenqueue(number=1, session=session)
            await session.commit()
            state = run.state
        await engine.dispose()
        return state

    assert asyncio.run(enqueue()) is RunState.SUCCEEDED
