"""What a declared flow tells the ledger of itself, so that doors outside the application can use it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runclaim.keys import Template
from runclaim.ledger.doors.registered_flows import FlowRecord, PhaseRecord

if TYPE_CHECKING:
    from runclaim.config import Config
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase


def describe(flow: DeclaredFlow[Any], config: Config) -> FlowRecord:
    """The flow's record, its phases with the bounds that are in force."""
    key, subject = flow.naming.key, flow.naming.subject
    return FlowRecord(
        name=flow.name,
        phases=tuple(_phase(each, config) for each in flow.phases.values()),
        input=flow.input_type.json_schema,
        own_code=flow.input_type.own_code,
        key=key.text if isinstance(key, Template) else None,
        subject=subject.text if isinstance(subject, Template) else None,
        has_subject=subject is not None,
        allow_secrets=flow.secret_fields.allowed,
        secrets=dict(flow.secret_fields.references),
        keep_keys=config.keep_keys.total_seconds(),
        dispatch_after=config.dispatch_after.total_seconds(),
        hooks=flow.hooks.kinds,
        fail_open=flow.fail_open,
    )


def _phase(phase: Phase[Any, Any], config: Config) -> PhaseRecord:
    options = phase.options
    backoff = asdict(options.backoff)
    backoff |= {name: backoff[name].total_seconds() for name in ("first", "ceiling")}
    return PhaseRecord(
        name=phase.name,
        queue=options.queue,
        on=options.on,
        max_attempts=options.max_attempts,
        max_losses=phase.max_losses,
        lease=(options.lease or config.lease).total_seconds(),
        max_duration=(options.max_duration or config.max_duration).total_seconds(),
        backoff=backoff,
    )
