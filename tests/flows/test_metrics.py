"""The metrics say what the ledger says, on both databases; a scrape never fails."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from runclaim.database import Database
from runclaim.ledger.rescue import rescue_worker
from runclaim.metrics import LedgerCollector, exposition
from tests.harness.bench import NO_WAIT, Bench

if TYPE_CHECKING:
    from runclaim.flows.flow import Flow


def scrape(bench: Bench) -> dict[tuple[str, ...], float]:
    """Every sample: (name, label, label, …) → value, the labels by their names."""
    text = exposition(LedgerCollector(lambda: bench.database)).decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def review(bench: Bench) -> Flow[Any]:
    flow = bench.flow()

    @flow.phase(name="plan", queue="heavy", max_attempts=1)
    def plan(ctx: Any) -> int:
        if ctx.input.number < 0:
            raise ValueError("negative")
        return ctx.input.number

    flow.phase(name="deliver")(lambda ctx: 1)
    return flow


def test_queued_runs_are_counted_by_queue_with_the_age_of_the_oldest_that_is_due(bench: Bench, review: Flow[Any]):
    for number in range(3):
        review.enqueue(repo="acme/app", number=number)
    review.using(delay=timedelta(hours=1)).enqueue(repo="acme/app", number=9)
    bench.execute("UPDATE runclaim_runs SET available_at = enqueued_at WHERE key LIKE '%pr-0'")
    told = scrape(bench)

    assert 4 == told["runclaim_runs", "review", "queued"]
    assert 3 == told["runclaim_queue_depth", "review", "heavy"]
    assert 0 < told["runclaim_queue_oldest_seconds", "review", "heavy"] < 60


def test_a_queue_of_delayed_runs_has_no_depth_and_no_age(bench: Bench, review: Flow[Any]):
    review.using(delay=timedelta(hours=1)).enqueue(repo="acme/app", number=9)
    told = scrape(bench)

    assert (1, 0, 0) == (
        told["runclaim_runs", "review", "queued"],
        told["runclaim_queue_depth", "review", "heavy"],
        told["runclaim_queue_oldest_seconds", "review", "heavy"],
    )


def test_totals_come_from_the_journal_and_each_event_counts_once(bench: Bench, review: Flow[Any]):
    """
    INVARIANT: a total is the number of events in the journal, however often it is folded.

    Breaks if the cursor and the totals are not written together.
    """
    for number in (1, 2, -1):
        run = review.enqueue(repo="acme/app", number=number)
        bench.finish(review, run)
    review.enqueue(repo="acme/app", number=3).cancel()
    for _ in range(3):
        bench.tell()
    told = scrape(bench)

    assert {"succeeded": 2, "failed": 1, "canceled": 1} == {
        state: told["runclaim_runs_finished_total", "review", state] for state in ("succeeded", "failed", "canceled")
    }
    assert 4 == told["runclaim_events_total", "review", "run.enqueued"]
    assert 2 == told["runclaim_phase_duration_seconds_count", "review.plan"]
    assert 4 == told["runclaim_run_duration_seconds_count", "review"]
    assert 3 == told["runclaim_run_start_seconds_count", "review"]
    assert 0 < told["runclaim_run_duration_seconds_sum", "review"] < 60
    assert 4 == told["runclaim_run_duration_seconds_bucket", "review", "+Inf"]


def test_totals_outlive_the_runs_they_count(bench: Bench, review: Flow[Any]):
    bench.finish(review, review.enqueue(repo="acme/app", number=1))
    bench.tell()
    bench.execute("DELETE FROM runclaim_runs")

    assert 1 == scrape(bench)["runclaim_runs_finished_total", "review", "succeeded"]


def test_duplicates_lost_leases_and_actions_are_counted(bench: Bench):
    @bench.action("comment")
    def comment(payload: Any, idempotency_key: str) -> str:
        raise ConnectionError("who knows")

    flow = bench.flow()

    @flow.phase
    def plan(ctx: Any) -> None:
        ctx.plan_action("comment", {})

    run = flow.enqueue(repo="acme/app", number=1)
    message = bench.rung[0]
    bench.finish(flow, run)
    bench.deliver(flow, message)
    planned = scrape(bench)
    bench.send()
    bench.totals()
    told = scrape(bench)

    assert 1 == planned["runclaim_actions", "comment", "planned"]
    assert 1 == told["runclaim_actions", "comment", "unknown"]
    assert 1 == told["runclaim_actions_settled_total", "comment", "unknown"]
    assert 1 == told["runclaim_duplicates_refused_total", "review"]


def test_lapsed_leases_show_until_they_are_rescued_and_lost_ones_for_ever(bench: Bench, review: Flow[Any]):
    review.enqueue(repo="acme/app", number=1)
    bench.runner()._claim(review.phases["plan"], [(bench.rung[0].run_id, 0)])
    bench.execute("UPDATE runclaim_runs SET lease_expires_at = enqueued_at")
    before = scrape(bench)
    bench.database.run(lambda conn: rescue_worker(conn, "node:1"))
    bench.tell()
    told = scrape(bench)

    assert 1 == before["runclaim_leases_lapsed", "review"]
    assert ("runclaim_leases_lapsed", "review") not in told
    assert 1 == told["runclaim_leases_lost_total", "review"]


def test_blocked_runs_are_counted(bench: Bench):
    from runclaim import Blocked

    flow = bench.flow()

    @flow.phase
    def plan(ctx: Any) -> None:
        raise Blocked("ask somebody")

    flow.enqueue(repo="acme/app", number=1)
    bench.deliver(flow)

    assert 1 == scrape(bench)["runclaim_runs", "review", "blocked"]


def test_a_listener_that_is_behind_shows(bench: Bench, review: Flow[Any]):
    bench.tell()
    review.enqueue(repo="acme/app", number=1)
    bench.tell()
    review.enqueue(repo="acme/app", number=2)

    assert 1 == scrape(bench)["runclaim_listener_behind", "runclaim.totals"]


def test_a_listener_is_not_ahead_of_a_journal_that_was_purged(bench: Bench, review: Flow[Any]):
    review.enqueue(repo="acme/app", number=1)
    bench.tell()
    bench.execute("DELETE FROM runclaim_runs")

    assert 0 == scrape(bench)["runclaim_listener_behind", "runclaim.totals"]


def test_a_ledger_that_does_not_answer_is_told_and_no_error():
    away = Database("postgresql+psycopg://nobody@127.0.0.1:1/none", patience=NO_WAIT)

    text = exposition(LedgerCollector(lambda: away)).decode()

    assert "runclaim_up 0.0" in text


def test_a_database_without_our_tables_is_told_and_no_error(tmp_path):
    empty = Database(f"sqlite:///{tmp_path}/empty.db", patience=NO_WAIT)
    text = exposition(LedgerCollector(lambda: empty)).decode()
    empty.close()

    assert "runclaim_up 0.0" in text


def test_scrapes_within_five_seconds_read_the_ledger_once(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def database() -> Database:
        asked.append(1)
        return bench.database

    moment = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    collector = LedgerCollector(database)
    for moment[0] in (1000.0, 1001.0, 1004.9):
        exposition(collector)
    assert [1] == asked

    moment[0] = 1005.1
    exposition(collector)
    assert [1, 1] == asked


def test_no_label_names_a_run_or_a_key(bench: Bench, review: Flow[Any]):
    run = review.enqueue(repo="canary-of-the-key", number=1)
    bench.finish(review, run)
    bench.tell()
    text = exposition(LedgerCollector(lambda: bench.database)).decode()

    assert run.id not in text
    assert "canary" not in text
