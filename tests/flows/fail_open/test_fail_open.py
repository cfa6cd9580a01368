"""Fail-open: idempotent phases go on while the ledger is really away; nothing is lost or doubled when it is back."""

from __future__ import annotations

import asyncio
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from runclaim import RunState, Skip
from runclaim.errors import DeclarationError, LedgerNeeded, LedgerUnavailable, RunNotFound
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.fail_open import backlog
from runclaim.flows.fail_open.local_records import LocalRecords
from runclaim.flows.fail_open.reconcile import Fate, Reconciler
from runclaim.flows.messages.payload import MAX_CARRIED_BYTES
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.ledger.claim import ClaimRequest, claim
from tests.gate import Gate
from tests.harness.bench import Bench, PullRequest
from tests.harness.ledgers import put_away
from tests.ledger.concurrency import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim import Run
    from runclaim.flows.flow import Flow
    from runclaim.ledger.dispatch import Due

PATIENCE = timedelta(seconds=0.2)
MINUTE = timedelta(minutes=1)


class Earlier:
    """Stands for a phase before."""

    name = "earlier"


class Outage:
    """A bench whose database can go away and come back; meanwhile nobody reaches it."""

    def __init__(self, bench: Bench, take_away: Callable[[], object], bring_back: Callable[[], object]) -> None:
        self.bench, self._take_away, self._bring_back = bench, take_away, bring_back
        self.records = LocalRecords(Path(bench.config.fail_open_folder))
        self.bodies: list[str] = []
        _ = bench.ledger.database

    def begin(self) -> None:
        for database in (self.bench.database, self.bench.ledger.database, self.bench.keeper._database):
            database.close()
        self._take_away()

    def end(self) -> None:
        self._bring_back()

    def flow(self, *bodies: Any, fail_open: bool = True, **how: Any) -> Flow:
        """A flow of phases that note their starts and then do what they are told."""
        made = self.bench.flow(fail_open=fail_open, **how)
        for number, does in enumerate(bodies or (None,)):
            made.phase(name=f"phase{number}", idempotent=True)(self._noting(does))
        return made

    def _noting(self, does: Any) -> Any:
        def body(ctx):
            self.bodies.append(f"{ctx.key} {ctx.phase}")
            return ctx.input.head if does is None else does(ctx)

        return body

    def reconcile(self) -> int:
        return Reconciler(self.bench.ledger, self.records).reconcile_all()


@pytest.fixture(autouse=True)
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are told when a test says so."""
    monkeypatch.setattr(backlog, "EVERY_SECONDS", 3600.0)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    """A file whose disk is gone, or a server that nobody gets through to."""
    settings = {"ledger_patience": PATIENCE, "fail_open_folder": str(tmp_path / "open")}
    if request.param == "sqlite":
        disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
        disk.mkdir()
        bench = Bench(f"sqlite:///{disk / 'ledger.db'}", **settings)
        yield Outage(bench, lambda: disk.rename(elsewhere), lambda: elsewhere.rename(disk))
        bench.keeper.shut()
        bench.close()
        return
    with Gate(request.getfixturevalue("bench_postgres_url")) as gate:
        bench = Bench(gate.url, **settings)
        yield Outage(bench, gate.shut, gate.open)
        bench.keeper.shut()
        put_away(bench)


def message(outage: Outage) -> Due:
    return outage.bench.rung.pop(0)


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


def test_an_enqueue_goes_to_the_broker_and_two_of_one_key_name_one_run(outage: Outage):
    """
    INVARIANT: one run a key, also without the ledger.

    Breaks if an open enqueue makes up an id, or the worker claims without looking whether the run is there.
    """
    flow = outage.flow()
    outage.begin()
    first, second = (flow.enqueue(repo="acme/app", number=7) for _ in range(2))
    other = flow.enqueue(repo="acme/app", number=8)
    outage.end()
    with pytest.raises(RunNotFound):
        _ = first.state
    endings = [outage.bench.deliver(flow).ending for _ in range(3)]

    assert first.id == second.id != other.id
    assert ["success", "duplicate", "success"] == endings
    assert ("b2", "b2") == (first.result, other.result)
    assert flow.enqueue(repo="acme/app", number=7).id == first.id
    assert ["acme/app:pr-7 phase0", "acme/app:pr-8 phase0"] == outage.bodies


def test_an_enqueue_of_a_key_that_has_a_run_starts_nothing(outage: Outage):
    flow = outage.flow()
    known = flow.enqueue(repo="acme/app", number=7)
    outage.bench.finish(flow, known)
    outage.begin()
    again = flow.enqueue(repo="acme/app", number=7)
    outage.end()

    assert "duplicate" == outage.bench.deliver(flow).ending
    assert (True, ["acme/app:pr-7 phase0"]) == (again.id != known.id, outage.bodies)
    assert 1 == outage.bench.count("runclaim_runs")


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


def test_an_input_above_the_cap_is_not_carried_and_its_run_waits(outage: Outage):
    flow = outage.flow()
    large = PullRequest("acme/app", 7, head="x" * MAX_CARRIED_BYTES)
    run = flow.enqueue(large)
    outage.begin()
    with pytest.raises(LedgerUnavailable):
        outage.bench.deliver(flow)
    with pytest.raises(LedgerUnavailable):
        flow.enqueue(replace(large, number=8))
    outage.end()

    assert ([], RunState.QUEUED, []) == (outage.bodies, run.state, outage.bench.rung)


@pytest.mark.parametrize(
    "how", [{"delay": MINUTE}, {"rerun": True}, {"run_id": "0195c0de-0000-7000-8000-000000000007"}]
)
def test_what_only_the_ledger_can_do_is_not_sent_without_it(outage: Outage, how: dict[str, Any]):
    flow = outage.flow()
    outage.begin()
    with pytest.raises(LedgerUnavailable):
        flow.using(**how).enqueue(repo="acme/app", number=7)
    outage.end()

    assert [] == outage.bench.rung


def test_an_enqueue_that_reaches_neither_the_ledger_nor_the_broker_says_so(outage: Outage):
    flow = outage.flow()
    outage.bench.rung.silent = True
    outage.begin()
    with pytest.raises(LedgerUnavailable):
        flow.enqueue(repo="acme/app", number=7)
    outage.end()


def test_messages_that_the_ledger_dispatches_carry_the_input_too(outage: Outage):
    flow = outage.flow(None, None)
    run = flow.enqueue(repo="acme/app", number=7)
    outage.bench.rung.clear()
    outage.bench.execute("UPDATE runclaim_runs SET dispatch_due_at = available_at")
    dispatch_due(outage.bench.database, outage.bench.rung, flows={flow.name: flow}, spacing=MINUTE)
    outage.bench.deliver(flow, inline=lambda *_: False)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()
    outage.reconcile()

    assert (["acme/app:pr-7 phase0", "acme/app:pr-7 phase1"], RunState.SUCCEEDED) == (outage.bodies, run.state)


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


def test_an_async_application_enqueues_without_the_ledger_too(outage: Outage):
    flow = outage.flow()
    outage.begin()
    run = asyncio.run(flow.aenqueue(repo="acme/app", number=7))
    outage.end()
    outage.bench.deliver(flow)

    assert "b2" == run.result


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


def test_an_ended_run_of_an_open_enqueue_is_found_by_its_key(outage: Outage):
    flow = outage.flow()
    outage.begin()
    run: Run = flow.enqueue(repo="acme/app", number=7)
    outage.end()
    outage.bench.finish(flow, run)

    assert flow.find("acme/app:pr-7").id == run.id
