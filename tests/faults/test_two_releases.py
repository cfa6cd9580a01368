"""Two releases of an application at once, as in a rolling deploy, while their processes are killed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from runclaim.states import TERMINAL, RunState
from tests.harness import until
from tests.harness.app import build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runclaim import Run
    from runclaim.flows.flow import Flow
    from tests.harness import Process, Site

#: Each lacks a phase of the other, and the budgets of all three differ.
RELEASES: dict[str, dict[str, Any]] = {
    "older": {"names": ["first", "second"], "phases": {"first": {"max_attempts": 5}, "second": {"max_attempts": 1}}},
    "newer": {"names": ["first", "third"], "phases": {"first": {"max_attempts": 4}, "third": {"max_attempts": 2}}},
}
BUDGETS = {"first": 5, "second": 1, "third": 2}
LAST = {"older": "second", "newer": "third"}
#: What the last phases do: pass, fail for good, or kill their process in the first attempt.
DEEDS = ("pass", "pass", "fail 9", "kill 1")


@pytest.fixture
def flows(site: Site) -> Iterator[dict[str, Flow[Any]]]:
    """The flow as each release enqueues it."""
    stages = {name: build(site.told | told) for name, told in RELEASES.items()}
    yield {name: stage.steps for name, stage in stages.items()}
    for stage in stages.values():
        stage.runs.close()
        stage.app.close()


def worker_of(site: Site, release: str) -> Process:
    site.told.update(RELEASES[release])
    return site.worker(ready=False)


def test_a_mixed_fleet_loses_nothing_and_keeps_to_every_budget(site: Site, flows: dict[str, Flow[Any]]):
    """
    INVARIANT: however messages and upkeep fall between two releases, each run ends, and no body starts too often.

    Breaks if a phase gets its neighbour's budget, if a release stamps what it cannot publish, or if a message that
    reaches the wrong release costs its run more than a moment.
    """
    workers = {release: worker_of(site, release) for release in RELEASES}
    for told in RELEASES.values():
        site.told.update(told)
        site.beat()
    runs: dict[tuple[str, int], Run] = {}
    for turn in range(2):
        for number in range(turn * 8, turn * 8 + 8):
            for release, flow in flows.items():
                do = {LAST[release]: DEEDS[number % 4], "first": "kill 1" if number % 8 == 0 else "pass"}
                runs[release, number] = flow.enqueue(name=f"{release}-{number}", do=do)
        started = len(site.starts())
        until(lambda seen=started: len(site.starts()) > seen + 4, "some bodies to start", so_far=site.story)
        for release in RELEASES:
            workers[release].kill_all()
            workers[release] = worker_of(site, release)
    until(lambda: all(run.state in TERMINAL for run in runs.values()), "every end", within=120, so_far=site.story)
    starts = Counter((start.name, start.phase) for start in site.starts())
    states = {which: run.state for which, run in runs.items()}

    assert {} == {name: times for name, times in starts.items() if times > BUDGETS[name[1]]}
    assert [] == site.doubled()
    for (release, number), state in states.items():
        if DEEDS[number % 4] == "fail 9":
            assert state is RunState.FAILED, site.story()
        if state is RunState.SUCCEEDED:
            phases = [phase for name, phase in site.rows() if name == f"{release}-{number}"]
            assert ["first", LAST[release]] == phases, site.story()
        elif DEEDS[number % 4] == "pass":
            # Then the attempts that the kills have cost were all it had.
            assert starts[f"{release}-{number}", LAST[release]] <= BUDGETS[LAST[release]], site.story()
    assert RunState.SUCCEEDED in states.values()
