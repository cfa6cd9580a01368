"""Flows by name: of the application at hand, or as its workers have registered them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.flows.client.new_run import options_of_door
from runclaim.flows.client.run_source import RunSource
from runclaim.flows.declare.registry import all_registered, registered
from runclaim.service.errors import UnknownFlow

if TYPE_CHECKING:
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.description import FlowDescription
    from runclaim.ledger.new_run import NewRun
    from runclaim.service.run_request import RunRequest


def known_flow(access: LedgerAccess, name: str, project: str | None = None) -> RunSource:
    """
    Where the runs of the flow of that name come from: of the application at hand, or as it is registered.

    Of flows that several projects have registered it is that of `project`, by default the configured one. Raises:
    UnknownFlow, LedgerUnavailable.
    """
    declared = access.flows.get(name)
    if declared is not None and declared.phases:
        return RunSource.declared(declared, access, access.headers_of)
    project = project or access.config.project
    if (description := access.ask(lambda conn: registered(conn, name, project))) is None:
        raise UnknownFlow(name, [each.name for each in known_flows(access)])
    return RunSource.registered(description, access)


def known_flows(access: LedgerAccess) -> list[FlowDescription]:
    """Every flow that is known here, by name. Raises: LedgerUnavailable."""
    known = access.ask(lambda conn: all_registered(conn, access.config.project))
    known |= {flow.name: flow.described(access.config) for flow in access.flows.values() if flow.phases}
    return [known[name] for name in sorted(known)]


def requested_run(flow: RunSource, request: RunRequest, *, trace_context: dict[str, str] | None) -> NewRun:
    """
    The run that a request stands for; nothing is written.

    `trace_context` comes from the caller. Raises: InputError, ConfigError.
    """
    return flow.new_run(
        request.input,
        options_of_door(delay=request.delay, priority=request.priority),
        project=request.project,
        key=request.key,
        subject=request.subject,
        trace_context=trace_context,
    )
