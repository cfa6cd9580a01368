"""Groups under faults: a worker that dies in the middle of one loses and doubles nothing, and harms nobody else."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from runclaim import RunState
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runclaim import Run
    from tests.harness import Site

PHASES = ("first", "second", "third")


def named(numbers: Iterable[int], **do: dict[str, str]) -> list[dict[str, Any]]:
    """Inputs; `run7={"second": "kill"}` tells the body of one what to do."""
    return [{"name": f"run{number}", "do": do.get(f"run{number}", {})} for number in numbers]


def completed(site: Site, runs: list[Run]) -> Counter[tuple[str, str]]:
    """How often each phase of each run is told as completed in the journal."""
    asked = text("SELECT run_id, phase FROM runclaim_events WHERE type = 'phase.completed'")
    ids = {run.id for run in runs}
    found = site.database.ask(lambda conn: conn.execute(asked).all())
    return Counter((str(run_id), phase) for run_id, phase in found if str(run_id) in ids)


@pytest.mark.parametrize(
    "place", ["claim.after_commit", "body.after", "complete.before_commit", "complete.after_commit"]
)
def test_a_worker_killed_in_the_middle_of_groups_loses_and_doubles_nothing(
    make_site: Callable[..., Site], postgres_url: str, place: str
):
    """
    INVARIANT: what a dead process held goes back, and each phase completes once.

    Breaks if a group's claims are not all rescued, or what a shared commit has recorded runs again.
    """
    # No rows of the application's: with those a completion is settled alone.
    site = make_site(postgres_url, settings={"grouped": True}, rows=False)
    landed = site.folder / "landed"
    landed.touch()  # the failpoint passes until this is gone
    site.worker(concurrency=2, env={"RUNCLAIM_FAILPOINTS": f"{place}=kill@{landed}"})
    site.beat()
    warm = site.stage.steps.enqueue_many(named(range(1000, 1060)))
    site.ended(*warm)
    landed.unlink()
    runs = site.stage.steps.enqueue_many(named(range(60)))
    until(landed.exists, f"somebody to pass {place}", so_far=site.story)
    site.ended(*runs)

    assert completed(site, runs) == Counter({(run.id, phase): 1 for run in runs for phase in PHASES})
    starts = Counter((start.run_id, start.phase) for start in site.starts())
    assert max(starts.values()) <= 2, site.story()
    assert 1 == min(starts[run.id, phase] for run in runs for phase in PHASES)


def test_a_body_that_kills_its_process_takes_no_run_of_its_group_with_it(
    make_site: Callable[..., Site], postgres_url: str
):
    """
    INVARIANT: whoever shared a group with such a body loses one of its budget, not all of it.

    Breaks if a run that was lost is claimed beside others again: each crash would cost them all.
    """
    site = make_site(
        postgres_url, settings={"grouped": True}, rows=False, phases={phase: {"max_losses": 2} for phase in PHASES}
    )
    site.worker(concurrency=2)
    site.beat()
    warm = site.stage.steps.enqueue_many(named(range(1000, 1060)))
    site.ended(*warm)
    runs = site.stage.steps.enqueue_many(named(range(40), run7={"second": "kill"}))
    site.ended(*runs, state=None, within=90.0)

    assert runs[7].state is RunState.FAILED
    assert [RunState.SUCCEEDED] * 39 == [run.state for run in runs if run is not runs[7]], site.story()
    assert {1} == set(completed(site, runs).values())
