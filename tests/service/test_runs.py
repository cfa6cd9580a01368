"""Runs as every door shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runclaim import Blocked
from runclaim.errors import RunNotFound
from runclaim.flows.client.changes import view_of
from runclaim.keys import uuid7
from runclaim.ledger import read
from runclaim.ledger.doors.run_pages import RunFilter, run_line
from runclaim.service import runs

if TYPE_CHECKING:
    from runclaim import Run
    from tests.harness.bench import Bench


def succeeded(bench: Bench) -> Run:
    return ended(bench, None)


def blocked(bench: Bench) -> Run:
    return ended(bench, Blocked("a person"))


def failed(bench: Bench) -> Run:
    return ended(bench, ValueError("no"))


def ended(bench: Bench, error: Exception | None) -> Run:
    flow = bench.flow(subject="{repo}")

    @flow.phase(max_attempts=1)
    def plan(ctx: Any) -> dict[str, int]:
        if error is not None:
            raise error
        return {"files": 1}

    run = flow.using(priority=4).enqueue(repo="acme/app", number=7)
    bench.deliver(flow)
    return run


def queued(bench: Bench) -> Run:
    flow = bench.flow()
    flow.phase(name="plan")(lambda ctx: None)
    return flow.enqueue(repo="acme/app", number=7)


@pytest.mark.parametrize("state", [queued, succeeded, blocked, failed])
def test_a_run_is_the_same_json_in_a_listing_and_by_itself(bench: Bench, state: Any):
    """
    INVARIANT: a door shows the same run whatever it has read of it.

    Breaks if a listing and a look at one run compute a field of their own.
    """
    run = state(bench)
    with bench.database.read() as conn:
        line, view = run_line(conn, run.id), read.run(conn, run.id)
        whole = runs.whole_run_json(conn, view)

    assert runs.run_json(line) == runs.run_json(view)
    more = {"input", "result", "output_refs", "phase_is_gone", "delivery_id", "delivery_action"}
    assert more == whole.keys() - runs.run_json(line).keys()
    assert "traceback" not in str(whole["error"])


def test_a_result_is_shown_once_the_run_has_succeeded(bench: Bench):
    run = succeeded(bench)

    assert {"files": 1} == bench.ledger.ask(lambda conn: runs.whole_run_json(conn, view_of(conn, run.id)))["result"]


def test_a_run_that_is_not_there_is_not_found(laptop: Bench):
    nobodys = uuid7()

    with pytest.raises(RunNotFound):
        runs.find_run(laptop.ledger, nobodys)
    with pytest.raises(RunNotFound):
        laptop.ledger.ask(lambda conn: view_of(conn, nobodys))


def test_a_listing_goes_on_past_a_page_and_ends_at_its_limit(laptop: Bench):
    flow = laptop.flow()
    flow.phase(name="plan")(lambda ctx: None)
    made = flow.enqueue_many([{"repo": "acme/app", "number": number} for number in range(130)])
    wanted = RunFilter(project="default")
    listed = {limit: [run["id"] for run in runs.runs(laptop.ledger, wanted, limit=limit)] for limit in (0, 105, 500)}

    assert ({run.id for run in made}, 130) == (set(listed[500]), len(listed[500]))
    assert ([], listed[500][:105]) == (listed[0], listed[105])
