"""What was done while the ledger was away is told to it once, or dropped where somebody has gone on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import DBAPIError

from runclaim import RunState, Skip
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.fail_open.reconcile import Fate, Reconciler
from tests.flows.fail_open.outage import message
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from tests.flows.fail_open.outage import Outage


def test_a_run_that_was_enqueued_and_run_without_the_ledger_is_inserted_and_completed(outage: Outage):
    flow = outage.flow(subject="{repo}")
    outage.begin()
    run = flow.using(project="acme", priority=3).enqueue(repo="acme/app", number=7)
    outage.bench.deliver(flow)
    outage.end()
    outage.reconcile()
    view = run.view

    assert (RunState.SUCCEEDED, "b2") == (run.state, run.result)
    assert ("acme", 3, "acme/app", "acme/app:pr-7") == (view.project, view.priority, view.subject, view.key)
    assert flow.using(project="acme").enqueue(repo="acme/app", number=7).id == run.id


def test_an_open_run_of_a_key_that_has_another_run_is_dropped(outage: Outage, caplog):
    flow = outage.flow()
    known = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    flow.enqueue(repo="acme/app", number=7)
    outage.bench.deliver(flow, outage.bench.rung.pop())
    outage.end()
    outage.reconcile()

    assert (RunState.QUEUED, 0) == (known.state, outage.bench.count("runclaim_phase_results"))
    assert (True, {("failed_open", "review"): 1}) == (outage.records.is_empty, outage.bench.totals())
    assert "that result is dropped" in caplog.text


def test_a_result_is_dropped_when_somebody_has_gone_on_with_the_run(outage: Outage, caplog):
    """
    INVARIANT: one completion a phase; what the ledger says is right.

    Breaks if a record is told without the fence of its message.
    """
    flow = outage.flow(lambda ctx: outage.bodies[-1] + str(len(outage.bodies)))
    run = flow.enqueue(repo="acme/app", number=7)
    due = message(outage)
    outage.begin()
    outage.bench.deliver(flow, due)
    record = outage.records.read(run.id)
    outage.records.remove(record)
    outage.end()
    outage.bench.deliver(flow, due)
    outage.records.write(record)

    assert (1, "acme/app:pr-7 phase02") == (outage.reconcile(), run.result)
    assert "that result is dropped" in caplog.text


def test_a_message_that_comes_again_is_run_once_and_reconciled_at_the_next_delivery(outage: Outage):
    flow = outage.flow()
    run = flow.enqueue(repo="acme/app", number=7)
    due = message(outage)
    outage.begin()
    endings = [outage.bench.deliver(flow, due).ending for _ in range(3)]
    outage.end()
    late = outage.bench.deliver(flow, due).ending

    assert ["success", "duplicate", "duplicate", "duplicate"] == [*endings, late]
    assert (["acme/app:pr-7 phase0"], RunState.SUCCEEDED) == (outage.bodies, run.state)


def test_findings_and_planned_actions_are_kept_with_the_result_and_written_once(outage: Outage):
    """
    INVARIANT: an action exists iff its phase completed.

    Breaks if a record forgets what was planned, or is told twice.
    """

    def body(ctx):
        found = ctx.finding(severity="major", title="a race", path="app.py", line=7)
        return ctx.plan_action("comment", {"body": "look"}, finding=found)

    sent = []
    outage.bench.action()(lambda payload, key: sent.append(key) or "comment-1")
    flow = outage.flow(body)
    told = []

    @flow.on_complete
    def tell(what) -> None:
        told.append(what)

    run = flow.enqueue(repo="acme/app", number=7)
    due = message(outage)
    outage.begin()
    outage.bench.deliver(flow, due)
    outage.end()
    record = outage.records.read(run.id)
    outage.reconcile()
    outage.records.write(record)
    outage.reconcile()
    outage.bench.send()

    assert [("a race", 7)] == [(each.title, each.line) for each in run.findings]
    assert (sent, [each.state for each in run.actions]) == ([f"{run.id}:phase0:0"], ["posted"] * 2)
    assert ["phase0"] == [each.phase for each in told]
    assert run.actions[0].finding_id == run.findings[0].id


def test_a_skipped_phase_is_skipped_in_the_ledger_too(outage: Outage):
    def body(ctx):
        raise Skip("nothing to do")

    flow = outage.flow(body)
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()
    outage.reconcile()

    assert (RunState.SUCCEEDED, "phase.skipped") == (run.state, run.events[-2].type)


def test_a_stale_record_of_an_earlier_phase_does_not_keep_a_later_one_from_running(outage: Outage):
    flow = outage.flow(None, None)
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()
    stale = outage.records.read(run.id)
    outage.reconcile()
    due = message(outage)
    outage.records.write(stale)
    outage.begin()
    ended = outage.bench.deliver(flow, due)
    outage.end()
    outage.reconcile()

    assert ("success", RunState.SUCCEEDED) == (ended.ending, run.state)


def test_many_processes_that_reconcile_at_once_record_a_result_once(outage: Outage):
    flow = outage.flow()
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    outage.bench.deliver(flow)
    outage.end()
    record = outage.records.read(run.id)

    told = together(6, lambda _: Reconciler(outage.bench.ledger, outage.records, patience=20.0).reconcile(record))

    assert {Fate.COMPLETED} == set(told)
    assert (RunState.SUCCEEDED, 1) == (run.state, outage.bench.count("runclaim_phase_results"))
    assert {("failed_open", "review"): 1} == outage.bench.totals()


def test_any_process_of_the_machine_reconciles_and_leaves_another_ledgers_records_alone(outage: Outage, tmp_path):
    flow = outage.flow()
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()
    strange = replace(outage.bench.config, database_url=f"sqlite:///{tmp_path / 'other.db'}")
    stranger, sibling = (
        LedgerAccess(lambda config=config: config, lambda: outage.bench.rung, outage.bench.flows)
        for config in (strange, outage.bench.config)
    )
    told = [Reconciler(each, outage.records).reconcile_all() for each in (stranger, sibling)]
    sibling.database.close()

    assert ([0, 1], RunState.SUCCEEDED) == (told, run.state)


def test_a_record_that_fits_no_more_is_set_aside_for_a_person_and_holds_up_no_other(outage: Outage, caplog):
    flow = outage.flow()
    runs = [flow.enqueue(repo="acme/app", number=number) for number in (7, 8)]
    outage.begin()
    for _ in runs:
        outage.bench.deliver(flow)
    outage.end()
    first = next(outage.records.all())
    outage.records.write(replace(first, outcome=replace(first.outcome, findings=[{"no": "finding"}])))
    (outage.records.folder / "torn.json").write_text("{")

    assert 1 == outage.reconcile()
    assert ["queued", "succeeded"] == sorted(run.state for run in runs)
    assert [first.run_id] == [path.stem for path in outage.records.folder.glob("*.refused")]
    assert "stays in" in caplog.text


def test_a_ledger_that_answers_with_an_error_of_its_own_sets_no_record_aside(outage: Outage):
    """
    INVARIANT: only what is wrong with a record itself is a person's business.

    Breaks if an older schema, or a permission that somebody took away, is taken for a fault of the record.
    """
    flow = outage.flow()
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()
    outage.bench.execute("ALTER TABLE runclaim_counters RENAME TO elsewhere")
    with pytest.raises(DBAPIError):
        outage.reconcile()
    outage.bench.execute("ALTER TABLE elsewhere RENAME TO runclaim_counters")

    assert (1, RunState.SUCCEEDED) == (outage.reconcile(), run.state)


def test_where_the_output_lies_is_recorded_with_the_result(outage: Outage):
    flow = outage.flow(lambda ctx: ctx.output_ref("s3://reports/7.json"))
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()
    outage.reconcile()

    assert (RunState.SUCCEEDED, "s3://reports/7.json") == (run.state, run.output_ref)
