"""Flows by name: of the application at hand, or as its workers have registered them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runclaim.errors import InputError
from runclaim.flows.client.options import Enqueuing, Options
from runclaim.flows.client.registered_flow import due_now, new_run, rerun_of
from runclaim.flows.client.rerun import again
from runclaim.flows.declare.flow_record import describe
from runclaim.ledger.doors.registered_flows import FlowRecord, all_registered, registered
from runclaim.ledger.run_keys import recorded_fingerprint
from runclaim.service.errors import UnknownFlow

if TYPE_CHECKING:
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView
    from runclaim.service.run_request import RunRequest


@dataclass(frozen=True, slots=True)
class KnownFlow:
    """A flow as it is known here; `declared` is `None` without its application."""

    record: FlowRecord
    declared: DeclaredFlow[Any] | None
    access: LedgerAccess

    def new_run(self, request: RunRequest) -> NewRun:
        """The run that a request stands for; nothing is written. Raises: InputError, ConfigError."""
        project, delay = request.project or self.access.config.project, request.delay or timedelta(0)
        if self.declared is not None:
            options = Options(project=project, delay=delay, priority=request.priority)
            new = Enqueuing(self.declared, self.access, options).new_run(request.input)
            _require_same("key", request.key, new.key.text)
            _require_same("subject", request.subject, new.subject)
            return new
        new = new_run(
            self.record,
            request.input,
            project=project,
            key=request.key,
            subject=request.subject,
            delay=delay,
            priority=request.priority,
        )
        return due_now(new)

    def rerun(self, view: RunView) -> NewRun:
        """The new run that a rerun of `view` makes; nothing is written. Raises: InputError, ConfigError."""
        if self.declared is not None:
            return again(self.access, self.declared, view, self._fingerprint_of)
        return due_now(rerun_of(self.record, view, self._fingerprint_of))

    def _fingerprint_of(self, key: tuple[str, str]) -> str | None:
        return self.access.ask(lambda conn: recorded_fingerprint(conn, *key))


def known_flow(access: LedgerAccess, name: str) -> KnownFlow:
    """A flow by its name. Raises: UnknownFlow, LedgerUnavailable."""
    declared = access.flows.get(name)
    if declared is not None and declared.phases:
        return KnownFlow(describe(declared, access.config), declared, access)
    if (record := access.ask(lambda conn: registered(conn, name))) is None:
        raise UnknownFlow(name, [each.name for each in known_flows(access)])
    return KnownFlow(record, None, access)


def known_flows(access: LedgerAccess) -> list[FlowRecord]:
    """Every flow that is known here, by name. Raises: LedgerUnavailable."""
    known = {record.name: record for record in access.ask(all_registered)}
    known |= {flow.name: describe(flow, access.config) for flow in access.flows.values() if flow.phases}
    return [known[name] for name in sorted(known)]


def _require_same(name: str, given: str | None, made: str | None) -> None:
    if given not in {None, made}:
        raise InputError(name, f"is computed by the application ({made!r} for this input); leave it out")
