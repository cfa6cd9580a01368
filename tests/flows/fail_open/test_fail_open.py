"""Fail-open: idempotent phases go on while the ledger is really away; nothing is lost or doubled when it is back."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text

from runclaim import RunState
from runclaim.errors import DeclarationError, LedgerNeeded, LedgerUnavailable
from runclaim.flows.fail_open.local_records import LocalRecords
from runclaim.flows.fail_open.reconcile import Fate, Reconciler
from runclaim.ledger.claim import ClaimRequest, claim
from tests.flows.fail_open.outage import MINUTE, PATIENCE, Earlier, message
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from tests.flows.fail_open.outage import Outage
    from tests.harness.bench import Bench


def test_a_first_claim_without_an_answer_opens_and_its_result_is_recorded_once_when_the_ledger_is_back(outage: Outage):
    """
    INVARIANT: the body goes on, its completion waits, and the later phases go on normally.

    Breaks if the result is kept nowhere, or is told to the ledger without a claim.
    """
    flow = outage.flow(None, lambda ctx: ctx.result(flow.phases["phase0"]) + "!")
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    first = outage.bench.deliver(flow)
    with pytest.raises(LedgerUnavailable):
        outage.reconcile()
    outage.end()
    told = (outage.reconcile(), outage.reconcile())
    outage.bench.finish(flow, run)

    assert ("success", told) == (first.ending, (1, 0))
    assert (RunState.SUCCEEDED, "b2!") == (run.state, run.result)
    assert ["acme/app:pr-7 phase0", "acme/app:pr-7 phase1"] == outage.bodies
    assert [
        "run.enqueued", "run.started", "phase.started", "phase.completed", "phase.started", "phase.completed",
        "run.succeeded",
    ] == [e.type for e in run.events]  # fmt: skip
    assert {("failed_open", "review"): 1} == outage.bench.totals()


def test_a_flow_fails_closed_unless_it_is_declared_otherwise(outage: Outage):
    flow = outage.flow(fail_open=False)
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    with pytest.raises(LedgerUnavailable):
        outage.bench.deliver(flow)
    with pytest.raises(LedgerUnavailable):
        flow.enqueue(repo="acme/app", number=8)
    outage.end()

    assert ([], True, RunState.QUEUED) == (outage.bodies, outage.records.is_empty, run.state)
    assert [] == outage.bench.rung


def test_a_definite_not_yours_is_never_overridden(outage: Outage):
    """
    INVARIANT: only silence opens.

    Breaks if a claim that was answered with nothing is taken for one without an answer.
    """
    flow = outage.flow()
    run = flow.enqueue(repo="acme/app", number=7)
    due = message(outage)
    run.cancel()

    assert "duplicate" == outage.bench.deliver(flow, due).ending
    assert ([], True) == (outage.bodies, outage.records.is_empty)


def test_a_completion_never_fails_open(outage: Outage):
    """The claim was made: the body's result is refused until the ledger answers, and nothing is kept beside it."""
    flow = outage.flow(lambda ctx: outage.begin())
    flow.phases["phase0"].options = replace(flow.phases["phase0"].options, lease=timedelta(seconds=0.5))
    run = flow.enqueue(repo="acme/app", number=7)
    with pytest.raises(LedgerUnavailable):
        outage.bench.deliver(flow)
    outage.end()

    assert outage.records.is_empty
    assert run.state is RunState.RUNNING


def test_a_body_that_fails_without_the_ledger_leaves_its_run_to_wait_for_it(outage: Outage):
    """
    INVARIANT: a run whose only trace is its message is not lost with its first attempt.

    Breaks if nothing is kept before the body runs.
    """
    flow = outage.flow(lambda ctx: 1 / (len(outage.bodies) - 1))
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    ended = outage.bench.deliver(flow)
    outage.end()
    waits = [Reconciler(outage.bench.ledger, outage.records).reconcile(record) for record in outage.records.all()]
    outage.bench.execute("UPDATE runclaim_runs SET dispatch_due_at = available_at")
    outage.bench.finish(flow, run)

    assert ("retry", [Fate.WAITS]) == (ended.ending, waits)
    assert (RunState.SUCCEEDED, 2) == (run.state, len(outage.bodies))


def test_a_worker_that_stops_hears_it_in_an_open_attempt(outage: Outage):
    def body(ctx):
        outage.bench.stopping = True
        ctx.check()

    flow = outage.flow(body)
    flow.enqueue(repo="acme/app", number=7)
    outage.begin()

    assert "released" == outage.bench.deliver(flow).ending
    outage.end()


@pytest.mark.parametrize(
    "asks",
    [
        lambda ctx: ctx.in_completion(lambda session: None),
        lambda ctx: ctx.session("security"),
        lambda ctx: ctx.named_session("reviewer"),
        lambda ctx: ctx.act("check", lambda key: None),
        lambda ctx: ctx.result(Earlier),
        lambda ctx: ctx.signal_of("approved"),
    ],
    ids=["in_completion", "session", "named_session", "act", "result", "signal"],
)
@pytest.mark.parametrize("caught", [False, True])
def test_what_only_the_ledger_can_take_or_give_ends_an_open_attempt(outage: Outage, asks, caught: bool):
    """
    INVARIANT: nothing that a body hands over is lost.

    Breaks if an open attempt takes what its local record cannot hold, or completes although it was refused.
    """

    def body(ctx):
        try:
            asks(ctx)
        except LedgerNeeded:
            if not caught:
                raise

    flow = outage.flow(body)
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    with pytest.raises(LedgerNeeded, match="needs the ledger, which cannot be reached"):
        outage.bench.deliver(flow)
    outage.end()
    outage.reconcile()

    assert (RunState.QUEUED, True) == (run.state, outage.records.is_empty)


def test_a_claim_that_was_made_after_all_is_adopted(outage: Outage):
    """
    INVARIANT: a claim whose answer was lost together with the ledger belongs to whoever asked for it.

    Breaks if the record does not keep the nonce: the run would wait for its lease and start again.
    """
    flow = outage.flow()
    run = flow.enqueue(repo="acme/app", number=7)
    due = message(outage)
    outage.begin()
    outage.bench.deliver(flow, due)
    outage.end()
    record = outage.records.read(run.id)
    asked = [ClaimRequest(run.id, due.fence, record.owner)]
    how: dict[str, Any] = {"flow": "review", "phase": "phase0", "worker": "w", "lease": MINUTE, "max_duration": MINUTE}
    outage.bench.database.run(lambda conn: claim(conn, asked, **how))
    outage.reconcile()

    assert (RunState.SUCCEEDED, 1) == (run.state, run.view.attempts)


def test_of_many_workers_that_hear_of_one_open_run_at_once_one_runs_it(outage: Outage):
    """
    INVARIANT: one run a key, and one body of it.

    Breaks if a worker takes the run that another has just inserted for an error.
    """
    flow = outage.flow()
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    due = message(outage)
    outage.end()
    # What each of them waits for here is the others, not the ledger.
    outage.bench.database.patience = outage.bench.ledger.database.patience = 20.0

    endings = together(8, lambda _: outage.bench.deliver(flow, due).ending)

    assert ["duplicate"] * 7 + ["success"] == sorted(endings)
    assert (["acme/app:pr-7 phase0"], "b2") == (outage.bodies, run.result)


def test_only_its_owner_reads_a_local_record_and_no_draft_is_left(outage: Outage):
    flow = outage.flow()
    run = flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()
    folder = outage.records.folder

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert 0o600 == stat.S_IMODE((folder / f"{run.id}.json").stat().st_mode)
    assert sorted(path.name for path in folder.iterdir()) == sorted([".lock", f"{run.id}.json"])


def test_where_no_local_record_can_be_kept_the_run_waits(outage: Outage, caplog):
    """
    INVARIANT: no body runs open without a trace.

    Breaks if the body starts before its record is on the disk.
    """
    outage.records.folder.write_text("a file where the folder should be")
    flow = outage.flow()
    flow.enqueue(repo="acme/app", number=7)
    outage.begin()
    with pytest.raises(LedgerUnavailable):
        outage.bench.deliver(flow)
    outage.end()

    assert [] == outage.bodies
    assert "no local record can be written" in caplog.text


def test_a_sqlite_file_that_somebody_keeps_locked_is_a_ledger_that_is_away(laptop: Bench, tmp_path):
    laptop.config = replace(laptop.config, ledger_patience=PATIENCE, fail_open_folder=str(tmp_path / "open"))
    laptop.database.patience = PATIENCE.total_seconds()
    event.listen(laptop.database.engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout=20"))
    laptop.database.close()
    flow = laptop.flow(fail_open=True)
    flow.phase(name="plan", idempotent=True)(lambda ctx: ctx.input.head)
    run = flow.enqueue(repo="acme/app", number=7)
    with laptop.ledger.database.engine.connect() as holder:
        holder.execute(text("DELETE FROM runclaim_counters"))
        ended = laptop.deliver(flow)
        holder.rollback()
    Reconciler(laptop.ledger, LocalRecords(tmp_path / "open"), patience=5.0).reconcile_all()

    assert ("success", "b2") == (ended.ending, run.result)


def test_every_phase_of_such_a_flow_is_declared_idempotent(laptop: Bench):
    flow = laptop.flow(fail_open=True)
    flow.phase(name="plan", idempotent=True)(lambda ctx: None)

    with pytest.raises(DeclarationError, match=r"phase review\.deliver is not declared idempotent"):
        flow.phase(name="deliver")(lambda ctx: None)
    with pytest.raises(DeclarationError, match="idempotent must be True or False"):
        flow.phase(name="deliver", idempotent=1)(lambda ctx: None)
    with pytest.raises(DeclarationError, match="waits for a signal"):
        laptop.flow("other", fail_open=True).phase(name="ask", idempotent=True, on="approved")(lambda ctx: None)
