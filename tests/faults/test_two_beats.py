"""Two beats at once, and workers that die between them: every run is published, rescued and completed as by one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from tests.faults.oracle import dispatched, nothing_lost_or_doubled
from tests.harness import until

if TYPE_CHECKING:
    from runclaim.servers import Server
    from tests.harness import Site

RUNS = 30


def test_two_beats_under_kills_and_a_flush_double_nothing(either_site: Site, valkey_server: Server):
    site = either_site
    landed = [site.folder / f"landed{number}" for number in range(3)]
    points = (
        f"rescue.after_commit=kill@{landed[0]};dispatch.after_commit=kill@{landed[1]};complete.after_commit=kill@{landed[2]}"
    )
    site.beat()
    site.beat()
    worker = site.worker(concurrency=4, ready=False, env={"RUNCLAIM_FAILPOINTS": points})
    runs = [site.enqueue(f"run{number}", second="gate" if number < 3 else "pass") for number in range(RUNS)]
    for run in runs[:3]:
        site.started(run, "second")
    for number in range(3):
        worker.kill_child(site.starts(runs[number], "second")[0].pid)
        site.open(f"run{number}", "second")
    until(lambda: all(path.exists() for path in landed), "every failpoint to be passed", so_far=site.story)

    nothing_lost_or_doubled(site, runs)
    asked = text("SELECT fence, count(*) FROM runclaim_events WHERE type = 'phase.rescued' GROUP BY run_id, fence")
    rescued = site.database.ask(lambda conn: conn.execute(asked).all())
    assert len(rescued) >= 3
    assert all(times == 1 for _fence, times in rescued), "no claim is given back twice"


def test_two_beats_publish_each_due_run_once_in_its_window(either_site: Site, valkey_server: Server):
    """Both dispatch all the while; the stamp lets one of them have each run."""
    site = either_site
    site.worker(concurrency=2)
    delayed = site.stage.steps.using(delay=timedelta(milliseconds=300))
    runs = [delayed.enqueue(name=f"run{number}") for number in range(RUNS)]
    site.beat()
    site.beat()

    nothing_lost_or_doubled(site, runs)
    assert dispatched(site) == RUNS
