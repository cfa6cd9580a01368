"""
The verdict on a site after faults, from outside the ledger.

Rows that completions wrote into a table without constraints say what completed; the lines of the effects file say how
often a body started. The ledger is asked one thing only: whether every acknowledged run has ended.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import psutil
from sqlalchemy import text

from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runclaim import Run
    from tests.harness import Process, Site

PHASES = ("first", "second", "third")
#: Room for a machine that is busy with other things; no body of these tests may start more often.
MAX_ATTEMPTS = 5
_DISPATCHED = re.compile(r"runclaim\.dispatch\[\S+ succeeded in \S+: (\d+)$", re.MULTILINE)
SETTINGS = {"lease": "2s", "rescue_every": "500ms", "dispatch_every": "500ms", "dispatch_after": "1s"}


def nothing_lost_or_doubled(site: Site, runs: Iterable[Run], *, within: float = 60.0) -> None:
    """Wait for the end of every acknowledged run, and hold what its bodies did against the promise."""
    runs = list(runs)
    site.ended(*runs, state=RunState.SUCCEEDED, within=within)
    completed = Counter(site.rows())
    expected = Counter((row.name, phase) for run in runs for row in site.starts(run)[:1] for phase in PHASES)

    assert expected == completed, site.story()
    assert len(expected) == len(runs) * len(PHASES), site.story()
    for run in runs:
        assert list(PHASES) == list(dict.fromkeys(start.phase for start in site.starts(run))), site.story()
    started = Counter((start.run_id, start.phase) for start in site.starts())
    assert max(started.values()) <= MAX_ATTEMPTS, site.story()


def happened(site: Site, run: Run, kind: str, *, phase: str = "%") -> int:
    """How many events of this type the run's journal has, of all phases or of one."""
    query = text(
        "SELECT count(*) FROM runclaim_events WHERE run_id = :run AND type = :kind AND coalesce(phase, '') LIKE :phase"
    )
    values = {"run": run.id, "kind": kind, "phase": phase}
    return int(site.database.ask(lambda conn: conn.execute(query, values).scalar_one()))


def is_so(site: Site, run: Run, condition: str) -> bool:
    """Whether the run's row in the ledger fulfils a condition in SQL."""
    asked = text(f"SELECT count(*) FROM runclaim_runs WHERE id = :run AND ({condition})")
    return bool(site.database.ask(lambda conn: conn.execute(asked, {"run": run.id}).scalar_one()))


def dispatched(site: Site) -> int:
    """How many messages the ledger's dispatch has published, as the workers' logs tell."""
    told = (_DISPATCHED.findall(process.text) for process in site.processes)
    return sum(int(number) for numbers in told for number in numbers)


def stopped_child(worker: Process) -> int | None:
    """The pool child that is stopped, if one is."""
    states = {child.pid: child.status() for child in psutil.Process(worker.pid).children()}
    return next((pid for pid, state in states.items() if state == psutil.STATUS_STOPPED), None)


def started_more_than_once(site: Site) -> int:
    """How many starts of bodies were repeats."""
    return sum(times - 1 for times in Counter((start.run_id, start.phase) for start in site.starts()).values())
