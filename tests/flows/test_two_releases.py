"""Two releases of one application on one ledger: each keeps to what it knows, and loses nothing of the other's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from runclaim import Backoff, RunState
from runclaim.flows.declare.registry import hooks_of_any_stop
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.ledger.rescue import rescue
from tests.harness.bench import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim import Run, Runclaim
    from runclaim.flows.flow import Flow


@dataclass(frozen=True)
class Order:
    name: str


AT_ONCE = Backoff(first=timedelta(0), jitter=False)
SPACING = timedelta(seconds=30)


@pytest.fixture
def newer(bench: Bench) -> Bench:
    return bench


@pytest.fixture
def older(bench: Bench) -> Iterator[Bench]:
    made = Bench(bench.config.database_url)
    yield made
    made.close()


def broken(ctx: Any) -> None:
    raise ValueError("no")


def plan_and_charge(release: Bench) -> Flow[Any]:
    flow = release.flow()
    flow.phase(name="plan", max_attempts=5)(lambda ctx: None)
    flow.phase(name="charge", max_attempts=1, backoff=AT_ONCE)(broken)
    return flow


def plan(release: Bench) -> Flow[Any]:
    flow = release.flow()
    flow.phase(name="plan", max_attempts=5)(lambda ctx: None)
    return flow


def the(run: Run, bench: Bench, column: str) -> Any:
    return bench.execute(f"SELECT {column} FROM runclaim_runs WHERE id = :id", id=run.id).scalar_one()


def test_a_phase_that_an_older_release_queued_starts_as_often_as_the_newer_one_says(newer: Bench, older: Bench):
    """
    INVARIANT: a phase's budget is that of a release that knows it.

    Breaks if whoever completes the phase before it gives it a budget of its own, and no claim mends that.
    """
    flow, known = plan_and_charge(newer), plan(older)
    run = flow.enqueue(repo="acme/app", number=7)
    older.deliver(known, newer.rung.pop())
    for _ in range(5):
        dispatch_due(newer.database, newer.rung, flows=newer.flows, spacing=SPACING)
        if newer.rung:
            newer.deliver(flow)

    assert [("charge", 1, "failure", "failed")] == [line for line in newer.diary.lines if line[0] == "charge"]
    assert (RunState.FAILED, 1, 1) == (run.state, run.view.attempts, the(run, newer, "max_attempts"))


def test_a_budget_that_a_claim_has_fixed_is_not_widened_by_another_release(newer: Bench, older: Bench):
    """Breaks if every claim writes its own release's budget: attempts of both would add up."""
    for release, most in ((newer, 2), (older, 5)):
        release.flow().phase(name="charge", max_attempts=most, backoff=AT_ONCE)(broken)
    run = newer.flows["review"].enqueue(repo="acme/app", number=7)
    newer.deliver(newer.flows["review"])
    for _ in range(5):
        dispatch_due(older.database, older.rung, flows=older.flows, spacing=SPACING)
        if older.rung:
            older.deliver(older.flows["review"])

    assert (RunState.FAILED, 2) == (run.state, run.view.attempts)


def test_a_retry_by_a_person_starts_with_the_budget_of_the_release_that_takes_it(newer: Bench, older: Bench):
    for release, most in ((older, 1), (newer, 3)):
        release.flow().phase(name="charge", max_attempts=most, backoff=AT_ONCE)(broken)
    run = older.flows["review"].enqueue(repo="acme/app", number=7)
    older.deliver(older.flows["review"])
    run.retry()
    newer.finish(newer.flows["review"], run)

    assert (RunState.FAILED, 3) == (run.state, run.view.attempts)


def test_a_release_stamps_no_run_at_a_phase_that_it_does_not_have(newer: Bench, older: Bench):
    """
    INVARIANT: a dispatch that can send nothing costs the run nothing.

    Breaks if dispatch picks by flow alone: the spacing would double with every look of the older release.
    """
    flow, known = plan_and_charge(newer), plan(older)
    run = flow.enqueue(repo="acme/app", number=7)
    older.deliver(known, newer.rung.pop())
    sent = [dispatch_due(older.database, older.rung, flows=older.flows, spacing=SPACING) for _ in range(6)]

    assert [0] * 6 == sent
    assert 0 == the(run, newer, "dispatches")
    assert 1 == dispatch_due(newer.database, newer.rung, flows=newer.flows, spacing=SPACING)


@pytest.mark.parametrize("declares", ["nothing", "the flow without the hook", "the flow with a hook of its own"])
def test_whoever_rescues_loses_no_hook(newer: Bench, older: Bench, declares: str):
    """
    INVARIANT: a run that stops tells its hooks once, whichever application or release finds that its worker died.

    Breaks if rescue plans only the hooks of flows that its own process declares.
    """
    flow = newer.flow()
    flow.phase(name="plan", max_attempts=1)(lambda ctx: None)
    flow.on_failed(tell)
    newer.register(flow)
    run = flow.enqueue(repo="acme/app", number=7)
    newer.runner()._claim(flow.phases["plan"], [(run.id, 0)])
    lapse(newer)
    if declares != "nothing":
        plan(older)
    if declares == "the flow with a hook of its own":
        older.flows["review"].on_failed(shout)
    older.database.run(lambda conn: rescue(conn, hooks=hooks_of_any_stop(conn, older.flows)))

    planned = newer.execute("SELECT kind FROM runclaim_actions ORDER BY kind").scalars().all()
    own = ["review.on_failed.shout"] if declares == "the flow with a hook of its own" else []
    assert [*own, "review.on_failed.tell"] == planned
    assert run.state is RunState.FAILED


def tell(event: Any) -> None:
    """A hook."""


def shout(event: Any) -> None:
    """Another."""


def lapse(bench: Bench) -> None:
    bench.execute("UPDATE runclaim_runs SET lease_expires_at = enqueued_at")


def test_a_message_goes_to_the_queue_that_the_phase_has_now(make: Callable[..., Runclaim]):
    """
    INVARIANT: a release that renames a queue takes its runs along.

    Breaks if a run is sent where the release that enqueued it would have sent it: nobody may listen there any more.
    """
    before, after, bulk = make(), make(), f"bulk-{uuid4()}"
    for runs, queue in ((before, "slow"), (after, bulk)):
        declare(runs, queue)
    delayed = before.flows["order"].using(delay=timedelta(microseconds=1)).enqueue(name="ada")
    with after.ledger.database.begin() as conn:
        conn.execute(text("UPDATE runclaim_runs SET dispatch_due_at = enqueued_at"))
    sent = after._runtime.dispatch()

    assert 1 == sent
    assert "slow" == delayed.view.queue
    assert 1 == waiting_in(after, bulk)


def declare(runs: Runclaim, queue: str) -> None:
    flow = runs.flow("order", Order, key="{name}")
    flow.phase(name="pack", queue=queue)(lambda ctx: None)
    runs.app.finalize()


def waiting_in(runs: Runclaim, queue: str) -> int:
    with runs.app.connection_for_read() as connection:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
