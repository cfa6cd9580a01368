"""Flows by name: of the application at hand, or as its workers have registered them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runclaim.flows.client.new_run import options_of_door
from runclaim.flows.client.run_source import RunSource
from runclaim.flows.declare.registry import all_registered, registered
from runclaim.ledger.run_keys import recorded_fingerprint
from runclaim.service.errors import UnknownFlow

if TYPE_CHECKING:
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.description import FlowDescription
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView
    from runclaim.service.run_request import RunRequest


@dataclass(frozen=True, slots=True)
class KnownFlow:
    """A flow as it is known here, and where its runs come from."""

    source: RunSource
    access: LedgerAccess

    @property
    def description(self) -> FlowDescription:
        """What the flow is."""
        return self.source.description

    def new_run(self, request: RunRequest, *, trace_context: dict[str, str] | None) -> NewRun:
        """
        The run that a request stands for; nothing is written.

        `trace_context` comes from the caller. Raises: InputError, ConfigError.
        """
        return self.source.new_run(
            request.input,
            options_of_door(delay=request.delay, priority=request.priority),
            project=request.project or self.access.config.project,
            key=request.key,
            subject=request.subject,
            trace_context=trace_context,
        )

    def rerun(self, view: RunView) -> NewRun:
        """The new run that a rerun of `view` makes; nothing is written. Raises: InputError, ConfigError."""
        return self.source.rerun_of(view, self._fingerprint_of)

    def _fingerprint_of(self, key: tuple[str, str]) -> str | None:
        return self.access.ask(lambda conn: recorded_fingerprint(conn, *key))


def known_flow(access: LedgerAccess, name: str) -> KnownFlow:
    """A flow by its name. Raises: UnknownFlow, LedgerUnavailable."""
    declared = access.flows.get(name)
    if declared is not None and declared.phases:
        return KnownFlow(RunSource.declared(declared, access.config, access.headers_of), access)
    if (description := access.ask(lambda conn: registered(conn, name))) is None:
        raise UnknownFlow(name, [each.name for each in known_flows(access)])
    return KnownFlow(RunSource.registered(description), access)


def known_flows(access: LedgerAccess) -> list[FlowDescription]:
    """Every flow that is known here, by name. Raises: LedgerUnavailable."""
    known = access.ask(all_registered)
    known |= {flow.name: flow.described(access.config) for flow in access.flows.values() if flow.phases}
    return [known[name] for name in sorted(known)]
