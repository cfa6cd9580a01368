"""
A flow as whoever makes its runs knows it: by its application, or by what its workers have registered.

Every new run and every rerun of a flow is made here, from inside and from outside, so that two doors make the same run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from runclaim.flows.client.new_run import HeadersOf, Options, new_run, no_headers
from runclaim.flows.client.registered_flow import RegisteredFlow
from runclaim.flows.client.rerun import rerun_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.config import Config
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.description import FlowDescription
    from runclaim.flows.declare.intake import TakesInputs
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView


@dataclass(frozen=True, slots=True)
class RunSource:
    """What a flow is, who takes its inputs, and what its application puts into the headers of its tasks."""

    description: FlowDescription
    inputs: TakesInputs
    headers_of: HeadersOf = no_headers

    @classmethod
    def declared(cls, flow: DeclaredFlow[Any], config: Config, headers_of: HeadersOf = no_headers) -> Self:
        """By its application, which is at hand. Raises: DeclarationError for a flow without phases."""
        return cls(flow.described(config), flow, headers_of)

    @classmethod
    def registered(cls, description: FlowDescription) -> Self:
        """By what its workers have registered. Nobody here can publish its messages, so beat does it at once."""
        return cls(replace(description, dispatch_after=timedelta(0)), RegisteredFlow(description))

    def new_run(
        self,
        given: Any,
        options: Options,
        *,
        project: str,
        key: str | None = None,
        subject: str | None = None,
        trace_context: dict[str, str] | None = None,
    ) -> NewRun:
        """
        The run that an input stands for; nothing is written.

        `key` and `subject` are what a door was told beside the input. Raises: InputError (InputRefused), and what the
        application raises for its headers.
        """
        intake = self.inputs.take(given, key=key, subject=subject)
        return new_run(
            self.description,
            intake,
            options,
            project=project,
            trace_context=trace_context,
            headers_of=self.headers_of,
        )

    def rerun_of(self, view: RunView, fingerprint_of: Callable[[tuple[str, str]], str | None]) -> NewRun:
        """See `client.rerun.rerun_of`."""
        return rerun_of(self.description, self.inputs, view, fingerprint_of)
