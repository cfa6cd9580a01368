"""A mistake of one queue, route or serializer is told of that one, and the messages of the others go."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from kombu import Connection, Queue

from runclaim import Runclaim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim.flows.flow import Flow

    Attach = Callable[..., "Shop"]


@dataclass(frozen=True)
class Order:
    number: int


class Shop:
    """An application with two flows: `good`, and `bad`, whose queue, route or serializer is a mistake."""

    def __init__(self, broker: str, url: str, queue: str | None = None, **conf: Any) -> None:
        self.broker = broker
        self.app = Celery("shop", broker=broker, set_as_current=False)
        self.app.conf.update(conf)
        self.runs = Runclaim(self.app, database_url=url)
        self.good: Flow[Order] = self._flow("good", None)
        self.bad: Flow[Order] = self._flow("bad", queue)

    def _flow(self, name: str, queue: str | None) -> Flow[Order]:
        flow = self.runs.flow(name, Order, key="{number}")
        flow.phase(name="one", queue=queue)(lambda ctx: None)
        return flow

    def waiting(self) -> int:
        """How many messages wait in the queue of what is good."""
        self.runs.ledger.publisher.flush()
        with Connection(self.broker) as connection:
            found = Queue("celery", channel=connection.default_channel)
            return int(found.queue_declare(passive=True).message_count)


@pytest.fixture
def attach(sqlite_url: str) -> Iterator[Attach]:
    made: list[Shop] = []

    def do(broker: str, queue: str | None = None, **conf: Any) -> Shop:
        made.append(Shop(broker, sqlite_url, queue, **conf))
        return made[-1]

    yield do
    for shop in made:
        shop.runs.close()
        shop.app.close()


def enqueued(shop: Shop, caplog: pytest.LogCaptureFixture) -> tuple[str, list[str]]:
    """The id of a run whose message cannot go, between two whose messages can, and what was logged."""
    with caplog.at_level(logging.WARNING, logger="runclaim"):
        shop.good.enqueue(number=1)
        run = shop.bad.enqueue(number=2)
        shop.runs.ledger.publisher.flush()
        shop.good.enqueue(number=3)
        shop.runs.ledger.publisher.flush()
    assert not shop.runs._broker.is_left_alone
    return run.id, [each.getMessage() for each in caplog.records]


def test_a_queue_that_exists_with_other_arguments_holds_up_only_its_own_runs(
    attach: Attach, rabbitmq_url: str, caplog: pytest.LogCaptureFixture
):
    """
    INVARIANT: what the broker refuses of one queue is that queue's, and does not count as a broker that is silent.

    Breaks if any error of a publish shuts the way to all queues, or if the next message gets the closed channel.
    """
    with Connection(rabbitmq_url) as connection:
        Queue("slow", channel=connection.default_channel).declare()
    queues = [Queue("slow", queue_arguments={"x-max-priority": 10}), Queue("celery")]
    shop = attach(rabbitmq_url, "slow", task_queues=queues)
    run_id, told = enqueued(shop, caplog)

    assert 2 == shop.waiting()
    assert 1 == len(told)
    assert told[0].startswith(f"run {run_id} cannot be sent to phase bad.one, queue slow: PreconditionFailed(")


def test_a_key_of_another_type_in_redis_holds_up_only_its_own_runs(
    attach: Attach, valkey_server: Any, caplog: pytest.LogCaptureFixture
):
    with redis.Redis.from_url(valkey_server.url) as client:
        client.set("slow", "no list")
    shop = attach(valkey_server.url, "slow")
    run_id, told = enqueued(shop, caplog)

    assert 2 == shop.waiting()
    assert [f"run {run_id} cannot be sent to phase bad.one, queue slow"] == [each.partition(":")[0] for each in told]


def refuse(name: str, *_: Any, **__: Any) -> None:
    if name.startswith("bad."):
        raise ConnectionError("the router's own database is away")


@pytest.mark.parametrize(
    "why, conf",
    [
        ("ConnectionError", {"task_routes": [refuse]}),
        ("QueueNotFound", {"task_create_missing_queues": False, "task_queues": [Queue("celery")]}),
        ("SerializerNotInstalled", {"task_annotations": {"bad.one": {"serializer": "none such"}}}),
    ],
)
def test_what_a_router_or_a_serializer_refuses_holds_up_only_its_own_runs(
    attach: Attach, valkey_server: Any, caplog: pytest.LogCaptureFixture, why: str, conf: dict[str, Any]
):
    shop = attach(valkey_server.url, "slow" if why == "QueueNotFound" else None, **conf)
    run_id, told = enqueued(shop, caplog)

    assert 2 == shop.waiting()
    assert 1 == len(told)
    assert told[0].startswith(f"run {run_id} cannot be sent to phase bad.one, queue ")
    assert why in told[0]


def test_of_many_runs_for_one_queue_the_mistake_is_told_once(
    attach: Attach, valkey_server: Any, caplog: pytest.LogCaptureFixture
):
    shop = attach(valkey_server.url, task_routes=[refuse])
    shop.runs.ledger.config.grouped  # noqa: B018 - resolved before the clock of the log starts
    with caplog.at_level(logging.WARNING, logger="runclaim"):
        runs = shop.bad.enqueue_many([Order(number) for number in range(250)])
        shop.runs.ledger.publisher.flush()

    assert [f"run {runs[0].id} and 249 more"] == [each.getMessage().partition(" cannot")[0] for each in caplog.records]


def test_an_upkeep_that_cannot_be_sent_silences_nobody(
    attach: Attach, valkey_server: Any, caplog: pytest.LogCaptureFixture
):
    """Each completion with an action asks for its sending; the next phase of the next run must go all the same."""
    shop = attach(valkey_server.url, task_routes=[lambda name, *_, **__: {}[name] if "deliver" in name else None])
    with caplog.at_level(logging.WARNING, logger="runclaim"):
        shop.runs._broker.ring_actions(3)

    assert not shop.runs._broker.is_left_alone
    assert ["runclaim.deliver cannot be sent"] == [each.getMessage().partition(":")[0] for each in caplog.records]
    shop.good.enqueue(number=1)
    assert 1 == shop.waiting()
