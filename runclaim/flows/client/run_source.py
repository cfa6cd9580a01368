"""
A flow as the code that makes its runs knows it: by its application, or by what its workers have registered.

Every new run and every rerun of a flow is made here, from inside and from outside, so that two doors make the same run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from runclaim import tracing
from runclaim.errors import InputError
from runclaim.flows.client.new_run import HeadersOf, Options, new_run, no_headers
from runclaim.flows.declare.intake import TypedInputs
from runclaim.flows.declare.registered_inputs import RegisteredInputs
from runclaim.ledger.run_keys import key_of, recorded_fingerprint

if TYPE_CHECKING:
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.description import FlowDescription
    from runclaim.flows.declare.intake import TakesInputs
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView


@dataclass(frozen=True, slots=True)
class RunSource:
    """What a flow is, its ledger, who takes its inputs, and what its application puts into the headers of its tasks."""

    access: LedgerAccess
    description: FlowDescription
    inputs: TakesInputs
    headers_of: HeadersOf = no_headers

    @classmethod
    def declared(cls, flow: DeclaredFlow[Any], access: LedgerAccess, headers_of: HeadersOf = no_headers) -> Self:
        """By its application, which is at hand. Raises: DeclarationError for a flow without phases."""
        return cls(access, flow.described(access.config), TypedInputs(flow), headers_of)

    @classmethod
    def registered(cls, description: FlowDescription, access: LedgerAccess) -> Self:
        """By what its workers have registered. This process cannot publish its messages, so beat does it at once."""
        return cls(access, replace(description, dispatch_after=timedelta(0)), RegisteredInputs(description))

    def new_run(
        self,
        given: Any,
        options: Options,
        *,
        project: str | None = None,
        key: str | None = None,
        subject: str | None = None,
        trace_context: dict[str, str] | None = None,
    ) -> NewRun:
        """
        The run that an input stands for; nothing is written.

        Without `project` it is of the application's. `key` and `subject` are what a door was told beside the input.
        Raises: InputError (InputRefused), and what the application raises for its headers.
        """
        intake = self.inputs.take(given, key=key, subject=subject)
        return new_run(
            self.description,
            intake,
            options,
            project=project or self.access.config.project,
            trace_context=trace_context,
            headers_of=self.headers_of,
        )

    def rerun_of(self, view: RunView) -> NewRun:
        """
        The new run that a rerun of `view` makes: its input as it was recorded, its phases as the flow has them now.

        Nothing is written. Raises: InputError when the recorded input was erased, no longer fits the flow, or makes
        another key now; LedgerUnavailable.
        """
        if view.was_erased:
            raise InputError("input", f"of run {view.id} was erased; enqueue a new run under another key")
        intake = self.inputs.take_recorded(view.input, key=view.key, subject=view.subject)
        options = Options(priority=view.priority, rerun=True)
        new = new_run(self.description, intake, options, project=view.project, trace_context=tracing.carrier())
        # The input is the recorded one, whatever defaults its type has been given since.
        fingerprint = self.access.ask(lambda conn: recorded_fingerprint(conn, *key_of(new)))
        if fingerprint is None or new.key.text != view.key:
            problem = f"of run {view.id} was {view.key!r} and flow {new.flow} now computes another; enqueue it again"
            raise InputError("key", problem)
        # As its headers: the rerun often comes from a person with a command, not from the enqueuer.
        return replace(new, input=view.input, fingerprint=fingerprint, headers=view.headers)
