"""Real processes report on themselves: the ledger's metrics in Flower, log lines as JSON, a file that says alive."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import Site, until

if TYPE_CHECKING:
    from pathlib import Path


def figures(address: str) -> dict[tuple[str, ...], float]:
    """What Flower's /metrics says, by name and labels."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.site(settings={"tell_every": "300ms"})
def test_flowers_metrics_have_the_ledgers_beside_its_own(postgres_site: Site):
    """
    INVARIANT: what is in the ledger can be scraped from Flower, which counts messages only.

    Breaks if Flower's process no longer finds the application and its ledger, or serves a registry of its own.
    """
    site = postgres_site
    site.worker(pool="threads", queues="celery,work")
    site.beat()
    runs = [site.enqueue(f"run{n}") for n in range(3)]
    site.ended(*runs)
    waiting = site.stage.steps.enqueue(name="held", do={"first": "gate"})
    site.started(waiting, "first")
    address = site.flower()
    seen = lambda: figures(address).get(("runclaim_runs_finished_total", "steps", "succeeded")) == 3  # noqa: E731
    until(seen, "the totals in Flower", so_far=lambda: {**figures(address)})
    told = figures(address)

    assert 1 == told["runclaim_up",]
    assert 1 == told["runclaim_runs", "steps", "running"]
    assert 3 == told["runclaim_phase_duration_seconds_count", "steps.third"]
    assert any(name == "python_info" for name, *_ in told)
    site.open("held", "first")


def test_no_process_but_flower_registers_the_metrics(redis_site: Site):
    """A worker's or a web application's own registry, which others may expose too, is left alone."""
    site = redis_site
    code = (
        "import tests.harness.app as module; from prometheus_client import REGISTRY, generate_latest;"
        "module.app.loader.import_default_modules(); print(b'runclaim' in generate_latest(REGISTRY))"
    )
    told = site.start("asked", [sys.executable, "-c", code])

    assert 0 == told.wait()
    assert "False\n" == told.text


@pytest.mark.site(phases={"first": {"max_attempts": 1}})
def test_each_line_of_a_worker_is_json_and_those_of_a_run_name_it(redis_site: Site):
    site = redis_site
    worker = site.worker(env={"RUNCLAIM_LOG_FORMAT": "json"})
    run = site.enqueue("canary-of-the-input", second="fail 1")
    site.ended(run, upkeep=True)
    worker.stop()
    lines = [json.loads(line) for line in worker.text.splitlines() if line.startswith("{")]
    ours = [line for line in lines if line["logger"] == "runclaim.worker" and line.get("run") == run.id]

    assert [("first", 1), ("second", 1), ("second", 2), ("third", 1)] == [
        (line["phase"], line["attempt"]) for line in ours
    ]
    assert sorted(line["fence"] for line in ours) == [line["fence"] for line in ours]
    # The banner is Celery's, and no log.
    assert [] == [line for line in worker.text.splitlines() if line.startswith("[20")]


SHORT = """
import json, os
from dataclasses import dataclass
from celery import Celery
from runclaim import Runclaim

told = json.loads(os.environ["HARNESS"])
app = Celery("short", broker=told["broker"])
runs = Runclaim(app, database_url=told["database_url"])

@dataclass(frozen=True)
class Name:
    name: str

short = runs.flow("short", Name, key="{name}")

@short.phase
def first(ctx):
    return 1
"""
ENQUEUE = (
    "import datetime, json, short; found = short.short.enqueue_many([{'name': f'run{n}'} for n in range(60)]);"
    "[run.wait(datetime.timedelta(seconds=40)) for run in found]; print(json.dumps([run.id for run in found]))"
)


def test_the_lines_of_runs_that_share_a_delivery_name_their_own_run(redis_site: Site):
    """Breaks if a line has the fields of whatever body runs when it is written: runs of a group settle together."""
    site = redis_site
    (site.folder / "short.py").write_text(SHORT)
    worker = site.worker(pool="threads", module="short", env={"RUNCLAIM_LOG_FORMAT": "json"})
    asked = site.start("asked", [sys.executable, "-c", ENQUEUE])
    assert 0 == asked.wait(60), site.story()
    worker.stop()
    ids = json.loads(asked.text.splitlines()[-1])
    lines = [json.loads(line) for line in worker.text.splitlines() if line.startswith("{")]
    told = {line["message"].split()[1]: line.get("run") for line in lines if ": success, attempt" in line["message"]}

    assert {f"run{number}:": run for number, run in enumerate(ids)} == told


def test_a_worker_and_a_beat_touch_their_files_while_they_live(redis_site: Site, tmp_path: Path):
    """
    INVARIANT: the age of the file tells a health check whether the process lives; nobody has to ask it.

    Breaks if the file is touched by a thread that goes on while the loop that consumes messages hangs.
    """
    site = redis_site
    files = {name: tmp_path / name for name in ("worker", "beat")}
    worker = site.worker(env={"RUNCLAIM_ALIVE_FILE": str(files["worker"])})
    site.beat(env={"RUNCLAIM_ALIVE_FILE": str(files["beat"]), "RUNCLAIM_DISPATCH_EVERY": "200ms"})
    for file in files.values():
        until(file.exists, f"{file.name}'s file")
    first = {name: file.stat().st_mtime for name, file in files.items()}
    newer = lambda name: files[name].stat().st_mtime > first[name]  # noqa: E731
    until(lambda: newer("worker") and newer("beat"), "files that are touched again", within=30)

    worker.pause()
    stopped = files["worker"].stat().st_mtime
    until(lambda: time.time() - stopped > 6, "an age that a living worker's file never has", within=30)
    assert stopped == files["worker"].stat().st_mtime
    worker.resume()


def test_a_recycled_pool_child_exports_its_spans_and_they_are_linked_to_the_enqueuer(postgres_site: Site):
    """
    INVARIANT: the enqueuer's trace reaches the worker through the ledger, and no span is lost with a pool child.

    Breaks if a child that has done its share (`max_tasks_per_child`) ends without exporting what it has.
    """
    site = postgres_site
    remote = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, is_remote=True, trace_flags=1)
    with trace.use_span(trace.NonRecordingSpan(remote)):
        runs = [site.enqueue(f"run{number}") for number in range(3)]
    worker = site.worker(
        pool="prefork",
        concurrency=1,
        module="tests.acceptance.traced_app",
        options=["--max-tasks-per-child", "1"],
    )
    site.ended(*runs)
    worker.stop()
    file = site.folder / "spans"
    spans = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    whole = [span for span in spans if span["name"] == "run steps"]
    assert {run.id for run in runs} == {span["attributes"]["runclaim.run"] for span in whole}
    assert {"0x0af7651916cd43dd8448eb211c80319c"} == {span["links"][0]["context"]["trace_id"] for span in whole}
    assert 3 * len(runs) == len([span for span in spans if span["name"].startswith("steps.")])
