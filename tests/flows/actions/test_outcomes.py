"""Sends whose run another transaction holds: they keep no other waiting, and none is lost or made twice."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from runclaim.flows.actions.outcomes import Outcomes
from tests.flows.actions.test_actions import OtherSide, shown
from tests.flows.run.test_lease_keeper import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from runclaim import Run
    from tests.harness.bench import Bench


def commenting(bench: Bench, many: int) -> list[Run]:
    """So many runs, each complete with one comment that is to be sent."""
    flow = bench.flow()
    flow.phase(name="deliver")(lambda ctx: ctx.plan_action("comment", ctx.input.number))
    runs = flow.enqueue_many([{"repo": "acme/app", "number": number} for number in range(many)])
    for _ in runs:
        bench.deliver(flow)
    return runs


@contextmanager
def held(bench: Bench, *runs: Run) -> Iterator[Connection]:
    """The application's own transaction, which has locked these runs; committed at the end of the block."""
    with bench.ledger.database.begin() as conn:
        for run in runs:
            conn.execute(text("SELECT 1 FROM runclaim_runs WHERE id = :id FOR UPDATE"), {"id": run.id})
        yield conn


def test_a_send_whose_run_somebody_holds_keeps_no_other_waiting(postgres_bench: Bench):
    """
    INVARIANT: a transaction that stays open costs the delivery of actions nothing but its own run's outcome, later.

    Breaks if a delivery waits for the row of one run, or if the outcome is lost because it did not wait.
    """
    bench, there = postgres_bench, OtherSide()
    bench.action()(there.post)
    first, *others = commenting(bench, 3)
    with held(bench, first):
        taken = bench.send()
        during = [shown(run)[0][0] for run in (first, *others)]
    until(lambda: shown(first) == [("posted", "1", 1)], "the outcome of the run that is free again")
    bench.outcomes.close()

    assert (3, ["sending", "posted", "posted"]) == (taken, during)
    assert [0, 1, 2] == sorted(payload for payload, _ in there.calls)
    assert 3 == bench.totals()["actions_posted", "comment"]
    assert 0 == bench.execute("SELECT sum(pending_actions) FROM runclaim_runs").scalar_one()


@pytest.mark.parametrize("finds", [True, False])
def test_a_send_that_could_never_be_recorded_is_not_made_twice_blindly(postgres_bench: Bench, caplog, finds: bool):
    """
    INVARIANT: an outcome that is given up leaves its action `sending`: it is looked up, or unknown.

    Breaks if what was not recorded is planned again.
    """
    bench, there = postgres_bench, OtherSide()
    action = bench.action()(there.post)
    if finds:
        action.lookup(there.find)
    (run,) = commenting(bench, 1)
    bench.outcomes = Outcomes(lambda: bench.database, bench.keeper.count, patience=0.0)
    with held(bench, run):
        bench.send()
        until(lambda: "End that transaction" in caplog.text, "the end of its patience")
        bench.outcomes.close()
    before = shown(run)
    bench.execute("UPDATE runclaim_actions SET available_at = planned_at")
    bench.send()

    assert [("sending", None, 1)] == before
    assert [("posted", "1", 2) if finds else ("unknown", None, 2)] == shown(run)
    assert 1 == len(there.calls)


def test_outcomes_of_one_run_wait_together_and_a_later_claim_is_not_overwritten(postgres_bench: Bench, caplog):
    """Breaks if an outcome that waited is recorded over the claim of a sender that came after it."""
    bench, there = postgres_bench, OtherSide()
    bench.action()(there.post).lookup(there.find)
    first, second = commenting(bench, 2)
    with held(bench, first, second) as conn:
        bench.send()
        conn.execute(
            text("UPDATE runclaim_actions SET fence = fence + 1, owner = 'another' WHERE run_id = :id"),
            {"id": first.id},
        )
    until(lambda: shown(second)[0][0] == "posted", "the outcome that still counts")
    bench.outcomes.close()

    assert [("sending", None, 1)] == shown(first)
    assert "took too long and lost its claim" in caplog.text


def test_with_too_many_that_wait_a_delivery_waits_too(postgres_bench: Bench, monkeypatch):
    """
    INVARIANT: what a locked run makes a process remember has a bound.

    Breaks if an outcome that cannot be recorded is always put aside: the room for them has no end.
    """
    monkeypatch.setattr("runclaim.flows.actions.outcomes._MOST_WAITING", 1)
    bench, there = postgres_bench, OtherSide()
    bench.action()(there.post)
    runs = commenting(bench, 3)
    with held(bench, *runs):
        delivery = threading.Thread(target=bench.send)
        delivery.start()
        until(lambda: len(there.calls) == 2, "the send that has no room to wait in")
        waiting = len(bench.outcomes._waiting)
    delivery.join()
    until(lambda: {shown(run)[0][0] for run in runs} == {"posted"}, "all outcomes")

    assert 1 == waiting
    assert 3 == len(there.calls)


def test_on_sqlite_the_outcome_waits_for_whoever_writes(laptop: Bench):
    """One writer holds the whole file there: nothing else could be written meanwhile, and nothing is lost either."""
    bench, there = laptop, OtherSide()
    is_locked = threading.Event()

    def post(payload: Any, key: str) -> str:
        found = there.post(payload, key)
        writer.execute("BEGIN IMMEDIATE")
        is_locked.set()
        return found

    bench.action()(post)
    (run,) = commenting(bench, 1)
    with closing(sqlite3.connect(bench.database.file, isolation_level=None, check_same_thread=False)) as writer:
        delivery = threading.Thread(target=bench.send)
        delivery.start()
        assert is_locked.wait(60)
        during = shown(run)
        writer.execute("ROLLBACK")
        delivery.join()

    assert [("sending", None, 1)] == during
    assert [("posted", "1", 1)] == shown(run)
