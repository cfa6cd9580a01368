"""Runs that wait: no worker, broker or caller of the time before has to be there when their signal comes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runclaim import RunState
from runclaim.flows.upkeep.rescue import rescue_lapsed
from tests.harness import Process, Site, until

if TYPE_CHECKING:
    from runclaim import Run
    from tests.acceptance.conftest import MakeSite

PAGE = Path(__file__).parents[2] / "docs" / "signals.md"
ON = {"phases": {"second": {"on": "approved"}}}
SIGNAL = "from tests.harness.app import stage; print(stage.runs.signal('x', 'approved', {'by': 'ann'}, id='1').state)"


def waits(site: Site, run: Run) -> None:
    until(lambda: run.state is RunState.WAITING, "the run to wait", so_far=site.story)


def signaled_elsewhere(site: Site) -> None:
    """Another process sends the signal, and ends well."""
    caller: Process = site.start("caller", [sys.executable, "-c", SIGNAL])
    assert 0 == caller.wait(60), caller.tail


def test_a_waiting_run_goes_on_at_once_by_a_signal_from_another_process(valkey_server, new_site: MakeSite, sqlite_url):
    """Nobody dispatches here: the message goes out after the signal's commit."""
    site = new_site(broker=valkey_server.url, database_url=sqlite_url, **ON)
    site.worker(pool="prefork")
    run = site.enqueue("x")
    waits(site, run)
    assert [("x", "first")] == site.rows()

    signaled_elsewhere(site)
    site.ended(run)
    assert [("x", "first"), ("x", "second"), ("x", "third")] == site.rows()


@pytest.mark.parametrize("database", ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.postgres)])
def test_a_waiting_run_outlives_its_worker_and_its_broker(
    valkey_server, new_site: MakeSite, request: pytest.FixtureRequest, database: str
):
    """
    INVARIANT: a signal is in the ledger or it was refused; what it starts needs nobody that was there before.

    Breaks if a waiting run hangs on a message or a lease, or a signal fails with its broker.
    """
    site = new_site(broker=valkey_server.url, database_url=request.getfixturevalue(database), **ON)
    worker = site.worker(pool="prefork")
    run = site.enqueue("x")
    waits(site, run)
    worker.kill_all()
    valkey_server.kill()
    rescue_lapsed(site.database, flows=site.stage.runs.flows)
    assert (RunState.WAITING, 2) == (run.state, run.view.fence)

    signaled_elsewhere(site)
    signaled_elsewhere(site)
    assert (RunState.QUEUED, 3) == (run.state, run.view.fence)
    valkey_server.start()
    site.worker(pool="threads")
    site.ended(run, upkeep=True)
    assert [("x", "first"), ("x", "second"), ("x", "third")] == site.rows()
    assert [1, 1, 1] == [len(site.starts(run, phase)) for phase in ("first", "second", "third")]


@pytest.mark.site(**ON)
def test_a_blocked_or_failed_phase_goes_on_without_another_signal_and_a_waiting_run_is_canceled(redis_site: Site):
    site = redis_site
    site.worker(pool="threads")
    stopped, failing, canceled = (
        site.enqueue("stopped", second="block"),
        site.enqueue("failing", second="fail 5"),
        site.enqueue("canceled"),
    )
    for run in (stopped, failing, canceled):
        waits(site, run)
    assert RunState.CANCELED is canceled.cancel()
    stopped.signal("approved")
    site.ended(stopped, state=RunState.BLOCKED)
    failing.signal("approved")
    site.ended(failing, state=RunState.FAILED, upkeep=True)

    site.open("stopped", "second")
    stopped.resume()
    failing.retry()
    site.started(failing, "second", times=6)
    site.ended(stopped, upkeep=True)
    assert [("canceled", "first")] == site.rows(canceled)
    assert [("stopped", phase) for phase in ("first", "second", "third")] == site.rows(stopped)


def test_the_module_of_the_page_waits_for_a_persons_approval(redis_site: Site):
    code = re.search(r"```python\n(# releases\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    site = redis_site
    (site.folder / "releases.py").write_text(code[1])
    env = {"CELERY_BROKER_URL": site.told["broker"], "RUNCLAIM_DATABASE_URL": site.told["database_url"]}
    site.worker(module="releases", pool="threads", env=env)
    asked = (
        "from datetime import timedelta as t; from releases import release, runs; release.enqueue(name='v1.2');"
        "print(runs.signal('v1.2', 'approved', {'by': 'ann'}).wait(t(seconds=30)))"
    )
    caller = site.start("caller", [sys.executable, "-c", asked], env=env)

    assert 0 == caller.wait(60), site.story()
    assert "v1.2.tar.gz, approved by ann" == caller.text.splitlines()[-1]
