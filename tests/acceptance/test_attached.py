"""The application that people have keeps its tasks, schedule, routes, signals and Task class; nothing is patched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.harness import Site, until

if TYPE_CHECKING:
    from tests.acceptance.conftest import MakeSite

MODULE = """
import json, os
from celery import Celery, Task, chain, signals
from runclaim import Runclaim
from tests.harness.app import Work

told = json.loads(os.environ["HARNESS"])


def note(what):
    with open(os.path.join(told["folder"], "notes"), "a") as notes:
        notes.write(what + "\\n")


class OurTask(Task):
    autoretry_for = (ValueError,)
    default_retry_delay = 0.1

    def __call__(self, *args, **kwargs):
        note(f"OurTask ran {self.name}")
        return super().__call__(*args, **kwargs)

    def apply_async(self, *args, **kwargs):
        note(f"OurTask sent {self.name}")
        return super().apply_async(*args, **kwargs)


app = Celery("shop", broker=told["broker"], backend=told["broker"], task_cls=OurTask)
app.conf.task_routes = {"shop.slow": {"queue": "slow"}, "review.second": {"queue": "slow"}}
app.conf.task_acks_late = True


@app.task(name="shop.before", bind=True, max_retries=2)
def before(self):
    if self.request.retries == 0:
        raise ValueError("once")
    return "before"


runs = Runclaim(app, database_url=told["database_url"], dispatch_every="500ms", rescue_every="500ms")
review = runs.flow("review", Work, key="{name}")


@review.phase
def first(ctx):
    note("body first")


@review.phase
def second(ctx):
    note("body second")


@app.task(name="shop.slow")
def slow(given="nothing"):
    return f"slow {given}"


app.conf.beat_schedule = {"ours": {"task": "shop.slow", "schedule": 0.3}}


@app.on_after_finalize.connect
def ours(sender, **kwargs):
    sender.add_periodic_task(0.3, before.s(), name="ours too")


@signals.task_success.connect(weak=False)
def succeeded(sender, **kwargs):
    note(f"signal success {sender.name}")


@signals.worker_process_init.connect(weak=False)
def child(**kwargs):
    note("signal child")
"""

ENQUEUE = """
from shop import app, before, review, slow
from celery import chain
run = review.enqueue(name="a")
print(chain(before.s(), slow.si("chained")).apply_async().get(timeout=30))
print(run.wait(__import__("datetime").timedelta(seconds=30)))
"""


def test_an_application_keeps_everything_it_had(redis_site: Site):
    """
    INVARIANT: attaching runclaim changes nothing about tasks that are not its own.

    Breaks if a task, a schedule entry, a route, a signal handler or the Task class is replaced instead of added to.
    """
    site = redis_site
    (site.folder / "shop.py").write_text(MODULE)
    site.worker(module="shop", queues="celery,slow", pool="prefork")
    beat = site.beat(module="shop")
    caller = site.start("caller", [sys.executable, "-c", ENQUEUE])
    assert 0 == caller.wait(60), site.story()

    assert ["slow chained", "None"] == caller.text.splitlines()[-2:]
    notes = lambda: (site.folder / "notes").read_text().splitlines()  # noqa: E731
    expected = {
        "signal child",
        "signal success shop.before",
        "signal success shop.slow",
        "signal success review.first",
        "OurTask ran shop.before",
        "OurTask ran review.first",
        "OurTask ran review.second",
        "OurTask sent review.first",
        "body first",
        "body second",
    }
    until(lambda: expected <= set(notes()), "every trace", so_far=lambda: expected - set(notes()))
    assert [1, 1] == [notes().count(f"body {phase}") for phase in ("first", "second")]
    for entry in ("ours", "ours too", "runclaim.rescue", "runclaim.dispatch"):
        beat.said(f"Sending due task {entry} ")


LOOK = """
import sys, types, celery, kombu, billiard, celery.app.task, celery.app.base, celery.worker.request, celery.app.amqp
import celery.worker.consumer, celery.concurrency.prefork, celery.beat, kombu.messaging, kombu.connection
import celery.app.trace, celery.result, celery.canvas, celery.platforms, celery.apps.worker, celery.signals

def attributes():
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] not in {"celery", "kombu", "billiard", "amqp", "vine"}:
            continue
        for label, value in vars(module).items():
            if isinstance(value, (types.FunctionType, type)):
                found[name, label] = value
            if isinstance(value, type) and value.__module__ == name:
                for inner, member in vars(value).items():
                    found[name, label, inner] = member
    return found

before = attributes()
from tests.harness.app import build
stage = build({"broker": "memory://", "database_url": "sqlite:///x.db", "folder": "."})
stage.app.finalize(); stage.app.tasks; stage.app.WorkController
after = attributes()
print({key: "changed" for key in before if before[key] is not after.get(key)})
"""


def test_nothing_of_celery_is_patched(tmp_path: Path):
    """
    INVARIANT: after attaching, every function and class attribute of Celery, kombu and billiard is what it was.

    Breaks if attaching assigns to a module or a class that other applications in the process share.
    """
    root = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("{}\n", 0) == (told.stdout, told.returncode), told.stderr


def test_two_applications_in_one_process_do_not_mix(valkey_server, new_site: MakeSite, tmp_path: Path):
    """
    INVARIANT: what is enqueued on one application is made, sent and run by that one only.

    Breaks if flows, tasks or settings are kept in a place that all attachments share.
    """
    sites = [
        new_site(
            broker=valkey_server.url.replace("/0", f"/{number}"),
            database_url=f"sqlite:///{tmp_path}/{name}.db",
            names=[f"{name}1", f"{name}2"],
            conf={"task_default_queue": f"queue-{name}"},
        )
        for number, name in enumerate(("one", "two"))
    ]
    runs = [site.enqueue("same") for site in sites]

    assert [1, 1] == [site.queued(f"queue-{name}") for site, name in zip(sites, ("one", "two"), strict=True)]
    assert set() == sites[0].stage.app.tasks.keys() & {"steps.two1", "steps.two2"}
    for site, run in zip(sites, runs, strict=True):
        site.worker(pool="threads")
        site.ended(run)
    assert [("same", "one1"), ("same", "one2")] == sites[0].rows()
    assert [("same", "two1"), ("same", "two2")] == sites[1].rows()
