"""A flow that fails open while its PostgreSQL is stopped: real workers, a real broker, and the ledger comes back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from runclaim import RunState
from runclaim.errors import LedgerUnavailable
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim import Run
    from runclaim.servers import Server
    from tests.harness import Site
    from tests.harness.process import Process

IDEMPOTENT = {name: {"idempotent": True} for name in ("first", "second", "third")}


@pytest.fixture
def open_site(make_site: Callable[..., Site], private_postgres: Server, tmp_path: Path) -> Site:
    """A site whose PostgreSQL is its own; a claim gives up after a second."""
    settings = {"ledger_patience": "1s", "lease": "10s", "fail_open_folder": str(tmp_path / "records")}
    return make_site(private_postgres.url, settings=settings, fail_open=True, phases=IDEMPOTENT)


def folder(site: Site) -> Path:
    return Path(site.told["settings"]["fail_open_folder"])


def records(site: Site) -> list[Path]:
    return sorted(folder(site).glob("*.json"))


def has_result(site: Site) -> bool:
    return any('"outcome": {' in path.read_text() for path in records(site))


def effects(site: Site) -> list[str]:
    return [f"{start.name} {start.phase}" for start in site.starts()]


def told(site: Site) -> None:
    """A run that was enqueued without the ledger is in it once its record is gone."""
    until(lambda: records(site) == [], "the records to be reconciled")


def test_runs_go_on_without_their_ledger_and_it_is_told_when_it_is_back(open_site: Site, private_postgres: Server):
    """
    INVARIANT: nothing is lost and no phase completes twice.

    Breaks if the enqueue waits for the ledger, if the worker drops what it did, or if nobody reconciles.
    """
    site = open_site
    known = site.enqueue("known")
    private_postgres.stop(immediate=True)
    run = site.enqueue("new")
    again = site.enqueue("new")
    site.worker()
    until(lambda: len(records(site)) == 2 and effects(site), "two open attempts", so_far=lambda: str(effects(site)))
    until(lambda: sorted(set(effects(site))) == ["known first", "new first"], "both bodies")
    until(lambda: has_result(site), "a local result")
    with pytest.raises(LedgerUnavailable):
        _ = run.state
    private_postgres.start()
    site.beat()
    told(site)
    site.ended(known, run)

    assert run.id == again.id
    assert sorted(effects(site)) == sorted(f"{name} {phase}" for name in ("known", "new") for phase in IDEMPOTENT)
    assert 2 == site.counter("failed_open")


def taken_over(site: Site, worker: Process, run: Run, server: Server) -> None:
    """The worker is killed, the ledger is back, and another worker ends the run."""
    worker.kill_all()
    server.start()
    site.worker()
    site.beat()
    told(site)
    site.ended(run)


def test_another_worker_of_the_machine_tells_what_a_killed_one_did(open_site: Site, private_postgres: Server):
    site = open_site
    worker = site.worker(concurrency=1)
    private_postgres.stop(immediate=True)
    run = site.enqueue("new")
    until(lambda: has_result(site), "a local result", so_far=lambda: worker.tail)
    taken_over(site, worker, run, private_postgres)

    assert ["new first", "new second", "new third"] == effects(site)


def test_a_worker_killed_in_an_open_body_leaves_its_run_to_the_ledger(open_site: Site, private_postgres: Server):
    """The message is gone and the ledger never heard of the run: the local record alone knows it."""
    site = open_site
    worker = site.worker(concurrency=1)
    private_postgres.stop(immediate=True)
    run = site.enqueue("new", first="gate")
    until(lambda: effects(site) == ["new first"], "the open body", so_far=lambda: worker.tail)
    worker.kill_all()
    private_postgres.start()
    site.open("new", "first")
    site.worker()
    site.beat()
    told(site)
    site.ended(run, state=RunState.SUCCEEDED)

    assert ["new first", "new first", "new second", "new third"] == effects(site)


@pytest.fixture
def patient_site(make_site: Callable[..., Site], private_postgres: Server, tmp_path: Path) -> Site:
    """As `open_site`, where a claim waits long enough for its worker to be killed while it does."""
    settings = {"ledger_patience": "4s", "lease": "10s", "fail_open_folder": str(tmp_path / "records")}
    return make_site(private_postgres.url, settings=settings, fail_open=True, phases=IDEMPOTENT)


def on_another_machine(site: Site) -> None:
    """What the enqueuer has written down is not at hand."""
    shutil.rmtree(folder(site))


def test_a_worker_killed_while_it_waits_for_the_ledger_loses_nothing(patient_site: Site, private_postgres: Server):
    """
    INVARIANT: a run is written down before anything waits.

    Breaks if the worker asks the ledger first: the message is acknowledged, and nobody else knows the run.
    """
    site = patient_site
    private_postgres.stop(immediate=True)
    run = site.enqueue("new")
    on_another_machine(site)
    worker = site.worker(concurrency=1)
    until(lambda: records(site) != [], "the record of the worker", so_far=lambda: worker.tail)
    assert [] == effects(site)
    taken_over(site, worker, run, private_postgres)

    assert ["new first", "new second", "new third"] == effects(site)


def test_a_flushed_broker_loses_no_run_that_was_enqueued_without_the_ledger(open_site: Site, private_postgres: Server):
    """
    INVARIANT: an enqueue that has returned is on a disk.

    Breaks if it is in its message only.
    """
    site = open_site
    private_postgres.stop(immediate=True)
    run = site.enqueue("new")
    with redis.Redis.from_url(site.told["broker"]) as client:
        client.flushall()
    private_postgres.start()
    site.worker()
    site.beat()
    told(site)
    site.ended(run)

    assert ["new first", "new second", "new third"] == effects(site)


def test_a_worker_that_can_keep_no_record_says_so_and_gives_the_message_back(open_site: Site, private_postgres: Server):
    """
    INVARIANT: what only a message knows is not lost with it.

    Breaks if a worker on a read-only disk drops what it cannot write down.
    """
    site = open_site
    private_postgres.stop(immediate=True)
    run = site.enqueue("new")
    on_another_machine(site)
    folder(site).touch()
    worker = site.worker(concurrency=1)
    worker.said("steps fail closed in this worker")
    worker.said("no local record can be written")
    private_postgres.start()
    site.beat()
    until(lambda: site.starts() != [], "the run to be made from its message", so_far=site.story)
    site.ended(run)

    assert ["new first", "new second", "new third"] == effects(site)
