"""A run as a message or a local record carries it: the run that it describes, and the claim of an open attempt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runclaim import tracing
from runclaim.flows.client.new_run import Options
from runclaim.flows.client.run_source import RunSource
from runclaim.ledger.fence import Claim

if TYPE_CHECKING:
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.fail_open.local_records import LocalRecord
    from runclaim.ledger.new_run import NewRun


def run_of(ledger: LedgerAccess, flow: DeclaredFlow[Any], run_id: str, carried: dict[str, Any]) -> NewRun:
    """The run that a message describes, as its flow is declared now. Raises: InputError."""
    options = Options(run_id=run_id, priority=carried["priority"])
    new = RunSource.declared(flow, ledger).new_run(
        flow.input_type.load(carried["input"]),
        options,
        project=carried["project"],
        trace_context=tracing.carrier(),
    )
    # The enqueuer is not here.
    return replace(new, headers=carried.get("headers"))


def claim_of(flow: DeclaredFlow[Any], record: LocalRecord) -> Claim:
    """The claim that an open attempt stands for. The ledger knows of none."""
    carried, phases = record.carried, tuple(flow.phases)
    cursor = phases.index(record.phase)
    return Claim(
        run_id=record.run_id,
        fence=record.fence + 1,
        owner=record.owner,
        flow=flow.name,
        key=carried["key"],
        subject=carried["subject"],
        phases=phases,
        cursor=cursor,
        phase=record.phase,
        queue=flow.phases[record.phase].options.queue,
        attempt=1,
        max_attempts=flow.phases[record.phase].options.max_attempts,
        priority=carried["priority"],
        input=carried["input"],
        headers=carried.get("headers"),
        project=carried["project"] or "",
        rerun=carried.get("rerun", 0),
    )
