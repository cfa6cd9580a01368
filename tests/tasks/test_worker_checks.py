"""What a worker refuses to start with, and what it warns of, without starting one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, signals
from kombu import Queue
from kombu.serialization import register, unregister

from runclaim import Runclaim
from runclaim.worker.checks import notices, refusals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Attach = Callable[..., Runclaim]


@dataclass(frozen=True)
class Customer:
    name: str


def charge(customer: str, cents: int = 0) -> None:
    """Task of the application's."""


def prepare(ctx: Any) -> None:
    """Body of a phase."""


@pytest.fixture
def attach(sqlite_url: str) -> Iterator[Attach]:
    """`attach(app, **settings)` gives a Runclaim with the flow `billing` and its phase `charge`."""
    made: list[Runclaim] = []

    def do(app: Celery | None = None, **settings: Any) -> Runclaim:
        app = app or Celery("shop", broker="memory://", set_as_current=False)
        made.append(Runclaim(app, database_url=sqlite_url, **settings))
        made[-1].flow("billing", Customer, key="{name}").phase(name="charge")(prepare)
        return made[-1]

    yield do
    for runs in made:
        runs.close()
        runs.app.close()


def refused(runs: Runclaim) -> list[str]:
    return refusals(runs.app, runs._runtime)


def test_an_ordinary_application_is_not_refused(attach: Attach):
    runs = attach()

    assert ([], []) == (refused(runs), notices(runs._runtime))


def test_a_task_that_has_the_name_of_a_phase_is_refused_with_both_functions(attach: Attach):
    """
    INVARIANT: a run's messages start the phase and nothing else that has its name.

    Breaks if Celery's registry is trusted: it gives a name to the first function, and drops the second.
    """
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.task(charge, name="billing.charge", shared=False)
    runs = attach(app)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = refused(runs)

    ours, theirs = f"the phase {__name__}.prepare", f"{__name__}.charge, a task of the application"
    said = f"the task name billing.charge is taken twice: by {ours}, and by {theirs}."
    assert [f"{said} Give the task another name=…"] == found


def test_a_task_declared_after_the_phase_whose_name_it_has_is_refused_too(attach: Attach):
    runs = attach()
    runs.app.task(charge, name="billing.charge", shared=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = refused(runs)

    # Celery says it from 5.7 on; before, nobody can know.
    expected = ["the task name billing.charge is taken twice"] if warned else []
    assert [each.partition(":")[0] for each in found] == expected


def test_a_task_that_has_the_name_of_the_upkeep_is_refused(attach: Attach):
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.task(charge, name="runclaim.rescue", shared=False)
    runs = attach(app)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = refused(runs)

    assert ["the task name runclaim.rescue is taken twice: by runclaim's upkeep"] == [
        each.partition(",")[0] for each in found
    ]


def test_a_phase_whose_name_is_taken_is_never_published(attach: Attach):
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.task(charge, name="billing.charge", shared=False)
    runs = attach(app)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with app.connection_for_read() as connection:
            # Of all applications of this process.
            waiting = connection.default_channel.queues
            waiting.pop("celery", None)
            run = runs.flows["billing"].enqueue(name="ann")

    assert "queued" == run.state
    assert "celery" not in waiting or waiting["celery"].empty()


def test_a_worker_that_could_not_read_what_runclaim_sends_is_refused(attach: Attach):
    runs = attach()
    runs.app.conf.accept_content = ["yaml"]

    (said,) = refused(runs)
    assert (
        "accept_content is ['yaml'] and runclaim's messages are json, as task_serializer says: this worker could not"
        " read them. Add 'json' to app.conf.accept_content, or set app.conf.task_serializer to one that is accepted"
    ) == said


@pytest.mark.parametrize("accepted", [["yaml"], ["application/x-yaml"], ["json", "yaml"]])
def test_what_runclaim_sends_is_written_as_the_applications_messages_are(attach: Attach, accepted: list[str]):
    runs = attach()
    runs.app.conf.update(accept_content=accepted, task_serializer="yaml")

    assert [] == refused(runs)
    assert {"yaml"} == {runs.app.tasks[name].serializer for name in ("billing.charge", "runclaim.rescue")}


def test_a_serializer_of_the_applications_own_such_as_signed_messages_is_used(attach: Attach):
    register("signed", str, str, content_type="application/data", content_encoding="utf-8")
    try:
        runs = attach()
        runs.app.conf.update(accept_content=["signed"], task_serializer="signed")
        assert [] == refused(runs)
        assert "signed" == runs.app.tasks["runclaim.dispatch"].serializer
    finally:
        unregister("signed")


def test_nothing_is_ever_sent_as_pickle(attach: Attach):
    runs = attach()
    runs.app.conf.task_serializer = "pickle"

    assert {"json"} == {runs.app.tasks[name].serializer for name in ("billing.charge", "runclaim.rescue")}


def test_an_upkeep_without_a_queue_is_refused(attach: Attach):
    runs = attach()
    runs.app.conf.update(task_create_missing_queues=False, task_queues=[Queue("orders")])

    (said,) = refused(runs)
    assert (
        "the upkeep has no queue, so beat cannot send it: Queue 'celery' missing from task_queues."
        ' Route it to one of yours: task_routes = {"runclaim.*": {"queue": …}}'
    ) == said


def test_an_upkeep_with_a_queue_of_its_own_needs_no_default_queue(attach: Attach):
    runs = attach()
    runs.app.conf.update(task_create_missing_queues=False, task_queues=[Queue("orders")])
    runs.app.conf.task_routes = {"runclaim.*": {"queue": "orders"}}

    assert [] == refused(runs)


def test_a_router_that_cannot_route_the_upkeep_is_refused(attach: Attach):
    runs = attach()
    runs.app.conf.task_routes = [lambda name, args, kwargs, options, task=None, **_: {"queue": args[0]}]

    assert ["a router of the application raises IndexError('tuple index out of range') for runclaim.rescue"] == [
        each.partition(";")[0] for each in refused(runs)
    ]


@pytest.mark.parametrize("limit", ["task_time_limit", "task_soft_time_limit"])
def test_an_action_that_celery_would_end_in_the_middle_is_refused(attach: Attach, limit: str):
    """
    INVARIANT: no send of an action is ended by a limit that was known when the worker started.

    Breaks if the check misses one of the places from which Celery takes a time limit.
    """
    found = {}
    for seconds in (5, 20):
        app = Celery("shop", broker="memory://", set_as_current=False)
        app.conf[limit] = seconds
        runs = attach(app)
        runs.action("mail", max_duration=timedelta(seconds=20))(lambda payload, key: "id")
        found[seconds] = refused(runs)

    ways = '{"runclaim.deliver": {"time_limit": …, "soft_time_limit": …}}'
    said = "the task runclaim.deliver may take 5 s, but sending mail longer: Celery would stop it halfway."
    assert {
        5: [f"{said} Give those actions a shorter max_duration, or set task_annotations = {ways}"],
        20: [],
    } == found


def test_a_limit_of_its_own_lets_the_upkeep_send_longer_than_other_tasks_run(attach: Attach):
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(task_time_limit=5, task_annotations={"runclaim.deliver": {"time_limit": 60}})
    runs = attach(app)
    runs.action("mail", max_duration=timedelta(seconds=20))(lambda payload, key: "id")

    assert [] == refused(runs)


def test_the_upkeep_takes_neither_the_default_rate_limit_nor_an_endless_life(attach: Attach):
    runs = attach()
    runs.app.conf.task_default_rate_limit = "2/m"
    tasks = [task for name, task in runs.app.tasks.items() if name.startswith("runclaim.")]

    assert [(0, 3600)] * 6 == [(task.rate_limit, task.expires) for task in tasks]


def test_a_log_format_that_the_applications_own_logging_overrides_is_told(attach: Attach):
    runs = attach(log_format="json")
    assert [] == notices(runs._runtime)

    def own(**_: Any) -> None:
        """Logging of the application's."""

    signals.setup_logging.connect(own)
    try:
        found = notices(runs._runtime)
    finally:
        signals.setup_logging.disconnect(own)
    assert ["log_format=json has no effect"] == [each.partition(":")[0] for each in found]
