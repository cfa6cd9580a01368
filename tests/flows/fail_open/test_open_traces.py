"""Runs that were enqueued without the ledger: each is written down before anything waits, and has one identity."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import RunState
from runclaim.errors import LedgerUnavailable, RunNotFound
from runclaim.flows.fail_open import backlog
from runclaim.flows.fail_open.local_records import LocalRecords
from runclaim.flows.fail_open.open_flows import OpenFlows
from runclaim.flows.messages.message import Message
from runclaim.flows.upkeep.dispatch import dispatch_due
from tests.flows.fail_open.outage import MINUTE
from tests.harness import until

if TYPE_CHECKING:
    from pathlib import Path

    from runclaim.flows.flow import Flow
    from tests.flows.fail_open.outage import Outage


class Killed(BaseException):
    """Stands for a SIGKILL: nothing that comes after it is done."""


def killed_while_it_waits(outage: Outage, flow: Flow) -> None:
    due = outage.bench.rung.pop(0)

    def die() -> Any:
        raise Killed

    deliverer = replace(outage.bench.deliverer(flow), runner=die)
    with pytest.raises(Killed):
        deliverer.deliver(
            flow,
            flow.phases["phase0"],
            Message.of(due.run_id, due.fence, due.carried),
            inline=lambda *_: True,
            watcher=outage.bench.diary,
        )


def test_a_worker_killed_while_it_waits_for_the_ledger_loses_no_run(outage: Outage):
    """
    INVARIANT: a run is written down before anything waits.

    Breaks if the record is written after the ledger was asked: the broker has forgotten the message by then.
    """
    flow = outage.flow()
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    # The enqueuer was on another machine.
    shutil.rmtree(outage.records.folder)
    killed_while_it_waits(outage, flow)
    outage.end()
    outage.reconcile()

    assert (RunState.QUEUED, [], {}) == (run.state, outage.bodies, outage.bench.totals())


def test_a_broker_that_forgets_everything_loses_no_run(outage: Outage):
    """
    INVARIANT: an enqueue that has returned is on this machine's disk until the ledger has its run.

    Breaks if it is in its message only.
    """
    flow = outage.flow()
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    outage.bench.rung.clear()
    outage.end()
    with pytest.raises(RunNotFound):
        _ = run.state
    outage.reconcile()
    outage.bench.execute("UPDATE runclaim_runs SET dispatch_due_at = available_at")
    outage.bench.finish(flow, run)

    assert (RunState.SUCCEEDED, "b2", True) == (run.state, run.result, outage.records.is_empty)


def test_a_process_without_a_worker_tells_the_ledger_itself(outage: Outage, monkeypatch):
    monkeypatch.setattr(backlog, "EVERY_SECONDS", 0.05)
    flow = outage.flow()
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    outage.end()
    until(lambda: outage.records.is_empty, "the record to be told")

    assert run.state is RunState.QUEUED


def test_an_enqueue_that_cannot_be_written_down_fails_closed(outage: Outage):
    outage.records.folder.write_text("a file where the folder should be")
    flow = outage.flow()
    outage.begin()
    with pytest.raises(LedgerUnavailable, match="set RUNCLAIM_FAIL_OPEN_FOLDER"):
        flow.enqueue(repo="acme/app", number=7)
    outage.end()

    assert [] == outage.bench.rung


def test_an_enqueue_that_was_refused_leaves_no_record(outage: Outage):
    flow = outage.flow()
    outage.bench.rung.silent = True
    outage.begin()
    with pytest.raises(LedgerUnavailable):
        flow.enqueue(repo="acme/app", number=7)
    outage.end()

    assert outage.records.is_empty


def test_a_second_enqueue_takes_no_result_away(outage: Outage):
    flow = outage.flow()
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    outage.bench.deliver(flow)
    flow.enqueue(repo="acme/app", number=7)
    outage.end()
    outage.reconcile()

    assert (RunState.SUCCEEDED, ["acme/app:pr-7 phase0"]) == (run.state, outage.bodies)


def test_where_neither_ledger_nor_disk_has_the_run_its_message_goes_back(outage: Outage, tmp_path: Path):
    """
    INVARIANT: what only a message knows is not lost with it.

    Breaks if a worker that cannot write drops the message.
    """
    flow = outage.flow()
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    (due,) = outage.bench.rung
    shutil.rmtree(outage.records.folder)
    (tmp_path / "no folder").touch()
    outage.bench.config = replace(outage.bench.config, fail_open_folder=str(tmp_path / "no folder"))
    outage.bench.open_flows = OpenFlows(outage.bench.ledger)
    with pytest.raises(LedgerUnavailable):
        outage.bench.deliver(flow)
    back = list(outage.bench.rung)
    outage.end()
    ended = outage.bench.deliver(flow)

    assert (back, ended.ending, run.result) == ([due], "success", "b2")
    assert ["acme/app:pr-7 phase0"] == outage.bodies


def test_a_run_that_was_purged_meanwhile_is_not_made_again(outage: Outage):
    """Breaks if the record of a later phase makes its run: it would begin at its first phase, under an old key."""
    flow = outage.flow(None, None)
    run = flow.enqueue(repo="acme/app", number=7)
    outage.bench.deliver(flow, inline=lambda before, after: False)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()
    for table in ("events", "phase_results", "run_keys", "runs"):
        outage.bench.execute(f"DELETE FROM runclaim_{table}")
    outage.reconcile()

    assert ["acme/app:pr-7 phase0", "acme/app:pr-7 phase1"] == outage.bodies
    assert (None, True) == (flow.find("acme/app:pr-7"), outage.records.is_empty)
    with pytest.raises(RunNotFound):
        _ = run.state


def test_a_run_has_its_enqueuers_headers_without_the_ledger_too(outage: Outage, monkeypatch):
    """
    INVARIANT: a run never runs as another tenant, nor as none, also where only its message has it.

    Breaks if a message does not carry the headers, or the claim or the run that is made of it leaves them out.
    """
    seen: list[Any] = []
    monkeypatch.setattr(outage.bench.ledger, "headers_of", lambda _new: {"tenant": "emil"})
    monkeypatch.setattr(outage.bench.diary, "started", lambda claim: seen.append((claim.phase, claim.headers)))
    flow = outage.flow(None, None)
    outage.begin()
    run = flow.enqueue(repo="acme/app", number=7)
    outage.bench.deliver(flow)
    outage.end()
    # Whoever tells the ledger is somebody else.
    monkeypatch.setattr(outage.bench.ledger, "headers_of", lambda _new: {"tenant": "whoever told"})
    outage.reconcile()
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()

    assert [("phase0", {"tenant": "emil"}), ("phase1", {"tenant": "emil"})] == seen
    assert {"tenant": "emil"} == run.view.headers


def keys(flow_of: Outage, **how: Any) -> tuple[Flow, list[str]]:
    seen: list[str] = []
    return flow_of.flow(lambda ctx: seen.append(ctx.idempotency_key), **how), seen


def test_work_that_was_done_with_the_ledger_has_the_same_idempotency_key_without_it(outage: Outage):
    """
    INVARIANT: one key of a run is one idempotency key, whether it was opened with the ledger or without.

    Breaks if it is made of the run's id, which only the ledger knows.
    """
    flow, seen = keys(outage)
    outage.bench.finish(flow, flow.enqueue(repo="acme/app", number=7))
    outage.begin()
    flow.enqueue(repo="acme/app", number=7)
    outage.bench.deliver(flow)
    outage.end()

    assert (2, 1) == (len(seen), len(set(seen)))


def test_a_rerun_has_an_idempotency_key_of_its_own_and_keeps_it_without_the_ledger(outage: Outage):
    flow, seen = keys(outage)
    run = flow.enqueue(repo="acme/app", number=7)
    outage.bench.finish(flow, run)
    again = run.rerun()
    outage.bench.rung.clear()
    outage.bench.execute("UPDATE runclaim_runs SET dispatch_due_at = available_at WHERE state = 'queued'")
    dispatch_due(outage.bench.database, outage.bench.rung, flows={flow.name: flow}, spacing=MINUTE)
    outage.begin()
    outage.bench.deliver(flow)
    outage.end()

    assert seen[1] == f"{again.id}:phase0" != seen[0]


def test_equal_keys_of_two_projects_are_two_runs_with_two_idempotency_keys(outage: Outage):
    """
    INVARIANT: a project's keys are its own, also without the ledger.

    Breaks if the id of an open run leaves the project out: the second run would be lost.
    """
    flow, seen = keys(outage)
    outage.begin()
    runs = [flow.using(project=project).enqueue(repo="acme/app", number=7) for project in ("one", "two")]
    outage.bench.deliver(flow)
    outage.bench.deliver(flow)
    outage.end()
    outage.reconcile()

    assert ["one", "two"] == [run.view.project for run in runs]
    assert 2 == len(set(seen))


def test_a_flow_that_fails_closed_has_keys_of_its_runs_ids(outage: Outage):
    flow, seen = keys(outage, fail_open=False)
    run = flow.enqueue(repo="acme/app", number=7)
    outage.bench.finish(flow, run)

    assert [f"{run.id}:phase0"] == seen


def test_a_folder_in_which_no_record_can_be_kept_is_told(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        LocalRecords(tmp_path / "file").check()
    good = LocalRecords(tmp_path / "folder")
    good.check()

    assert [] == list(good.folder.iterdir())
