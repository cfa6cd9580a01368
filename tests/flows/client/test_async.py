"""Enqueuing from async applications: the same answers, and a loop that goes on whatever the servers do."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, create_async_engine

from runclaim import KeyConflict, RunState
from tests.harness.bench import Bench, Rung
from tests.harness.until import until

if TYPE_CHECKING:
    from collections.abc import Collection

    from runclaim.flows.flow import Flow
    from runclaim.ledger.dispatch import Due
    from tests.harness.bench import PullRequest


@pytest.fixture
def review(bench: Bench) -> Flow[PullRequest]:
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    return flow


class Asynchronous:
    """The application's AsyncSession on the bench's database."""

    def __init__(self, bench: Bench) -> None:
        url = bench.config.database_url.replace("sqlite://", "sqlite+aiosqlite://")
        self._engine = create_async_engine(url)

    async def __aenter__(self) -> AsyncSession:
        self._session = AsyncSession(self._engine)
        return self._session

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._engine.dispose()


async def rung(bench: Bench, many: int) -> list[str]:
    """The keys that were rung for, once there are so many: the ring runs in a thread."""
    await asyncio.to_thread(until, lambda: len(bench.rung) >= many, "the ring")
    return [due.key for due in bench.rung]


def test_a_run_is_made_and_rung_for(bench: Bench, review):
    async def scenario() -> None:
        run = await review.aenqueue(repo="acme/app", number=7)
        again = await review.aenqueue(repo="acme/app", number=7)

        assert [(True, run.id), (False, run.id)] == [(run.created, run.id), (again.created, again.id)]
        with pytest.raises(KeyConflict):
            await review.aenqueue(repo="acme/app", number=7, head="other")

    asyncio.run(scenario())
    assert ["acme/app:pr-7"] == [due.key for due in bench.rung]


def test_a_run_is_made_in_an_async_session_and_rung_for_after_its_commit(bench: Bench, review):
    async def scenario() -> None:
        async with Asynchronous(bench) as db:
            run = await review.aenqueue(repo="acme/app", number=7, session=db)

            assert [True, []] == [run.created, bench.rung]
            await db.commit()
            assert ["acme/app:pr-7"] == await rung(bench, 1)
            assert run.state is RunState.QUEUED

    asyncio.run(scenario())


def test_a_scoped_async_session_stands_for_the_session_of_its_task(bench: Bench, review):
    async def scenario() -> None:
        async with Asynchronous(bench) as db:
            scoped = async_scoped_session(lambda: db, asyncio.current_task)
            await review.aenqueue(repo="acme/app", number=7, session=scoped)
            await scoped.commit()
            assert ["acme/app:pr-7"] == await rung(bench, 1)

    asyncio.run(scenario())


def test_an_async_session_that_rolls_back_makes_no_run(bench: Bench, review):
    async def scenario() -> None:
        async with Asynchronous(bench) as db:
            await review.aenqueue(repo="acme/app", number=7, session=db)
            await db.rollback()
            async with db.begin():
                savepoint = await db.begin_nested()
                await review.aenqueue(repo="acme/app", number=8, session=db)
                await savepoint.rollback()
                await review.aenqueue(repo="acme/app", number=9, session=db)
            assert ["acme/app:pr-9"] == await rung(bench, 1)

    asyncio.run(scenario())
    assert 1 == bench.count("runclaim_runs")


class Locked:
    """Nobody else writes to the ledger while this is entered."""

    def __init__(self, bench: Bench) -> None:
        self._connection = bench.database.engine.connect()
        self._is_sqlite = bench.database.url.get_backend_name() == "sqlite"

    def __enter__(self) -> None:
        self._connection.begin()
        if not self._is_sqlite:
            self._connection.execute(text("LOCK TABLE runclaim_run_keys IN EXCLUSIVE MODE"))

    def __exit__(self, *_: object) -> None:
        self._connection.rollback()
        self._connection.close()


async def ticks_while(waiting: asyncio.Task[Any], many: int = 20) -> int:
    """How often the loop came round while the task was still waiting."""
    ticks = 0
    while ticks < many and not waiting.done():
        await asyncio.sleep(0.005)
        ticks += 1
    return ticks


@pytest.mark.parametrize("joins", [False, True], ids=["on its own", "in a session"])
def test_a_locked_database_does_not_block_the_loop(bench: Bench, review, joins):
    """
    INVARIANT: `aenqueue` never holds up the event loop.

    Breaks if it runs in the loop's thread: nobody could let go of the lock that it waits for.
    """

    async def scenario() -> None:
        async with Asynchronous(bench) as db:
            with Locked(bench):
                how = {"session": db} if joins else {}
                waiting = asyncio.create_task(review.aenqueue(repo="acme/app", number=7, **how))
                assert 20 == await ticks_while(waiting)
            run = await waiting
            await db.commit()
            assert ["acme/app:pr-7"] == await rung(bench, 1)
            assert run.created

    asyncio.run(scenario())


class Stopped(Rung):
    """A broker that answers only once the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.is_asked = threading.Event()

    def publish(self, due: Collection[Due]) -> int:
        self.is_asked.set()
        assert self.goes_on.wait(60)
        return super().publish(due)


@pytest.mark.parametrize("joins", [False, True], ids=["on its own", "in a session"])
def test_a_stopped_broker_does_not_block_the_loop(bench: Bench, review, joins):
    bench.rung = stopped = Stopped()

    async def scenario() -> None:
        async with Asynchronous(bench) as db:

            async def enqueue() -> None:
                await review.aenqueue(repo="acme/app", number=7, **({"session": db} if joins else {}))
                await db.commit()
                await asyncio.to_thread(stopped.goes_on.wait, 60)

            waiting = asyncio.create_task(enqueue())
            assert await asyncio.to_thread(stopped.is_asked.wait, 60)
            assert 20 == await ticks_while(waiting)
            stopped.goes_on.set()
            await waiting
            assert ["acme/app:pr-7"] == await rung(bench, 1)

    asyncio.run(scenario())
