"""`ctx.check`: what a body hears of its own claim."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from runclaim import ClaimLost, RunState
from runclaim.database import Database
from runclaim.errors import Canceled
from runclaim.flows.run import check
from tests.harness.until import until

if TYPE_CHECKING:
    from runclaim import Run
    from tests.harness.bench import Bench

SHORT = timedelta(seconds=0.4)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ctx.check` asks the ledger each time instead of once a second."""
    monkeypatch.setattr(check, "_ASK_SECONDS", 0.0)


def told_by_check(bench: Bench, happens, **phase) -> tuple[Run, list[ClaimLost]]:
    """A run in whose body something happens before it checks."""
    flow = bench.flow(key="{repo}:{head}", subject="{repo}")
    heard: list[ClaimLost] = []

    @flow.phase(**phase)
    def deliver(ctx):
        if ctx.input.head != "h1":
            return
        happens(flow, ctx)
        try:
            ctx.check()
        except ClaimLost as lost:
            heard.append(lost)
            raise

    run = flow.enqueue(repo="acme/app", number=7, head="h1")
    bench.deliver(flow)
    return run, heard


def test_a_claim_that_is_current_hears_nothing(bench: Bench, eager):
    run, heard = told_by_check(bench, lambda flow, ctx: None)

    assert ([], RunState.SUCCEEDED) == (heard, run.state)


def test_a_canceled_run_hears_it_at_its_check(bench: Bench, eager):
    run, heard = told_by_check(bench, lambda flow, ctx: flow.get(ctx.run_id).cancel())

    assert [Canceled] == [type(each) for each in heard]
    assert (RunState.CANCELED, [("deliver", 1, "canceled", "canceled")]) == (run.state, bench.diary.lines)


def test_a_superseded_run_hears_it_at_its_check(bench: Bench, eager):
    run, heard = told_by_check(bench, lambda flow, ctx: flow.enqueue(repo="acme/app", number=7, head="h2"))

    assert ["the run is superseded"] == [each.reason for each in heard]
    assert (RunState.SUPERSEDED, [("deliver", 1, "claimlost", None)]) == (run.state, bench.diary.lines)


def test_a_purged_run_hears_it_at_its_check(bench: Bench, eager):
    _, heard = told_by_check(bench, lambda flow, ctx: bench.execute("DELETE FROM runclaim_runs"))

    assert ["the run is purged"] == [each.reason for each in heard]


def test_a_claim_that_somebody_else_holds_is_heard_of_at_the_check(bench: Bench, eager):
    stolen = "UPDATE runclaim_runs SET fence = fence + 2, owner = 'somebody else'"
    run, heard = told_by_check(bench, lambda flow, ctx: bench.execute(stolen))

    assert ["the run is running"] == [each.reason for each in heard]
    assert run.state is RunState.RUNNING


def test_a_body_past_its_max_duration_hears_it_at_its_check(bench: Bench):
    def wait(flow, ctx) -> None:
        until(lambda: trouble(bench) is not None, "the deadline", within=30)

    _, heard = told_by_check(bench, wait, max_duration=timedelta(milliseconds=50))

    assert ["its max_duration has passed"] == [each.reason for each in heard]


def trouble(bench: Bench) -> ClaimLost | None:
    (kept,) = bench.keeper._watched.values()
    return bench.keeper.trouble(kept.claim)


def test_between_two_looks_at_the_ledger_a_check_costs_no_query(bench: Bench):
    statements: list[str] = []
    flow = bench.flow()

    @flow.phase
    def deliver(ctx):
        engine = bench.database.engine
        note = lambda *args: statements.append(args[2])  # noqa: E731
        event.listen(engine, "before_cursor_execute", note)
        for _ in range(1000):
            ctx.check()
        event.remove(engine, "before_cursor_execute", note)

    flow.enqueue(repo="acme/app", number=7)
    bench.deliver(flow)

    assert len(statements) <= 5


def test_a_check_while_the_ledger_is_away_lets_the_body_go_on(laptop: Bench, eager, monkeypatch):
    """
    INVARIANT: what is not known is not lost.

    Breaks if `ctx.check` takes a ledger that does not answer for the loss of the claim, or for an error of the body.
    """

    def lose_it(flow, ctx) -> None:
        ctx._sources.check._database = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing", patience=SHORT)

    run, heard = told_by_check(laptop, lose_it)

    assert ([], RunState.SUCCEEDED) == (heard, run.state)
