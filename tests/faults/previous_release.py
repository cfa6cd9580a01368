"""
Workers and beats of the previous release and of this one on one queue and one ledger, while they are killed.

`dev.py previous` lays the previous release out and runs this; it is no part of the suite.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from runclaim.models import phase_results
from tests.faults.oracle import nothing_lost_or_doubled
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness import Process, Site

PREVIOUS = Path(os.environ["PREVIOUS_TREE"])
ROUNDS, RUNS_A_ROUND = 6, 20


def start(site: Site, release: str, words: list[str], number: int) -> Process:
    """A Celery process of one release; the other's harness has the same application."""
    name = f"{release}{number}"
    words = [*words, "-n", f"{name}@%h"] if words[0] == "worker" else [*words, "-s", str(site.folder / name)]
    if release == "today":
        return site.celery(name, words)
    paths = os.pathsep.join((str(PREVIOUS / "checkout"), str(site.folder)))
    command = [str(PREVIOUS / "venv" / "bin" / "python"), "-m", "celery", "-A", "tests.harness.app", *words]
    return site.start(name, command, env={"PYTHONPATH": paths})


@pytest.mark.parametrize("url", ["sqlite_url", "postgres_url"])
def test_a_fleet_of_two_releases_loses_and_doubles_nothing(
    make_site: Callable[..., Site], request: pytest.FixtureRequest, url: str
):
    """INVARIANT: during a roll-out two releases work on one ledger. Breaks if one writes what the other misreads."""
    site = make_site(request.getfixturevalue(url), subjects=False)
    worker = ["worker", "-l", "INFO", "-c", "2", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    beat, rolled = ["beat", "-l", "INFO", "--pidfile", ""], random.Random(11)
    fleet = {release: start(site, release, worker, 0) for release in ("previous", "today")}
    for release in fleet:
        start(site, release, beat, 100)
    runs, kills = [], 0
    for number in range(1, ROUNDS + 1):
        deeds = [{"first": "kill 1"} if each % 20 == 0 else {} for each in range(RUNS_A_ROUND)]
        runs += [site.enqueue(f"{number}-{each}", **do) for each, do in enumerate(deeds)]
        seen = len(site.starts())
        until(lambda seen=seen: len(site.starts()) > seen + 10, "some bodies to start", within=120, so_far=site.story)
        release = rolled.choice(sorted(fleet))
        fleet[release].kill_all()
        fleet[release], kills = start(site, release, worker, number), kills + 1
    nothing_lost_or_doubled(site, runs, within=240)
    with site.database.read() as conn:
        workers = conn.execute(select(phase_results.c.worker)).scalars().all()
    shares = {release: sum(each.startswith(release) for each in workers) for release in fleet}
    figures = f"{len(runs)} runs, {len(workers)} phases, {kills} kills, by release {shares}: 0 lost, 0 doubled"
    sys.stdout.write(f"\n{url.partition('_')[0]}: {figures}\n")

    assert min(shares.values()) > 0, shares
