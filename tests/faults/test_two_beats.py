"""Two beats at once, and workers that die between them: every run is rescued and completed as by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from tests.faults.oracle import nothing_lost_or_doubled
from tests.harness import until

if TYPE_CHECKING:
    from runclaim.servers import Server
    from tests.harness import Site

RUNS = 30


def test_two_beats_under_kills_and_a_flush_double_nothing(either_site: Site, valkey_server: Server):
    site = either_site
    places = ("rescue.after_commit", "dispatch.after_commit", "complete.after_commit")
    landed = {place: site.folder / place for place in places}
    points = ";".join(f"{place}=kill@{file}" for place, file in landed.items())
    site.beat()
    site.beat()
    worker = site.worker(concurrency=4, ready=False, env={"RUNCLAIM_FAILPOINTS": points})
    runs = [site.enqueue(f"run{number}", second="gate" if number < 3 else "pass") for number in range(RUNS)]
    for run in runs[:3]:
        site.started(run, "second")
    for number in range(3):
        worker.kill_child(site.starts(runs[number], "second")[0].pid)
        site.open(f"run{number}", "second")
    until(lambda: all(file.exists() for file in landed.values()), "every failpoint to be passed", so_far=site.story)

    nothing_lost_or_doubled(site, runs)
    asked = text("SELECT fence, count(*) FROM runclaim_events WHERE type = 'phase.rescued' GROUP BY run_id, fence")
    rescued = site.database.ask(lambda conn: conn.execute(asked).all())
    assert len(rescued) >= 3
    assert all(times == 1 for _fence, times in rescued), "no claim is given back twice"
