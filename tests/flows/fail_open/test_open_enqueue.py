"""An enqueue of a flow that fails open while the ledger is away: the message carries the run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import RunState
from runclaim.errors import LedgerUnavailable, RunNotFound
from runclaim.flows.messages.payload import MAX_CARRIED_BYTES
from runclaim.flows.upkeep.dispatch import dispatch_due
from tests.flows.fail_open.outage import MINUTE
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from runclaim import Run
    from tests.flows.fail_open.outage import Outage


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


def test_an_async_application_enqueues_without_the_ledger_too(outage: Outage):
    flow = outage.flow()
    outage.begin()
    run = asyncio.run(flow.aenqueue(repo="acme/app", number=7))
    outage.end()
    outage.bench.deliver(flow)

    assert "b2" == run.result


def test_an_ended_run_of_an_open_enqueue_is_found_by_its_key(outage: Outage):
    flow = outage.flow()
    outage.begin()
    run: Run = flow.enqueue(repo="acme/app", number=7)
    outage.end()
    outage.bench.finish(flow, run)

    assert flow.find("acme/app:pr-7").id == run.id
