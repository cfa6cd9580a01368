"""
One attempt: the body runs, and what came of it is one value. Nothing is written here.

An exception a body raises is an error of its attempt; an exception that ends the process (SystemExit,
KeyboardInterrupt) passes through, and the runner gives the claim back.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from runclaim import failpoints
from runclaim.flows.body.context import AttemptDescription, Context, Sources
from runclaim.flows.body.drafts import Drafts
from runclaim.flows.body.in_body import in_body
from runclaim.flows.declare.description import identity_of
from runclaim.flows.declare.secret_references import Secrets
from runclaim.flows.run.check import Check
from runclaim.flows.run.claimed_writes import ClaimedWrites
from runclaim.flows.run.ending import ended_by
from runclaim.ledger import read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runclaim.flows.body.context import BodyWrites
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.run.ending import Ended
    from runclaim.flows.run.process import Process
    from runclaim.ledger.fence import Claim


class Attempt:
    """A claim whose body is about to run in this process."""

    context_type: ClassVar[type[Context[Any]]] = Context

    def __init__(
        self, claim: Claim, *, flow: DeclaredFlow[Any], process: Process, known_results: dict[str, Any]
    ) -> None:
        self.claim, self.flow, self.phase = claim, flow, flow.phases[claim.phase]
        self.secrets = secrets_of(flow, claim)
        self._process, self._known_results = process, known_results

    def run(self) -> Ended:
        """Run the body once."""
        started = time.monotonic()
        ended = self._outcome(started)
        failpoints.hit("body.after")
        return ended

    def _outcome(self, started: float) -> Ended:
        context, result, error = None, "null", None
        try:
            context = self._context()
            failpoints.hit("body.before")
            with in_body(self.phase.task_name):
                value = self.phase(context)
            result = self.phase.result_type.dump(value)
        except Exception as caught:  # noqa: BLE001 - whatever a body raises is the end of its attempt
            error = self.phase.meaning(caught)
        ended = self.ended_by(error, timedelta(seconds=time.monotonic() - started))
        if context is None:
            return ended
        return replace(
            ended,
            result=result,
            writes=tuple(context.completions),
            findings=tuple(context.records.findings),
            actions=tuple(context.records.actions),
            output_ref=context.records.output_ref,
        )

    def ended_by(self, error: Exception | None, ran: timedelta) -> Ended:
        """How the attempt ends that raised this, or nothing."""
        backoff, hide = self.phase.options.backoff, self.secrets.redact
        return ended_by(error, claim=self.claim, backoff=backoff, ran=ran, hide=hide)

    def _context(self) -> Context[Any]:
        claim = self.claim
        value = self.flow.input_type.load(claim.input)
        attempt = AttemptDescription(
            run_id=claim.run_id,
            identity=identity_of(claim, fail_open=self.flow.fail_open, key=lambda: self.flow.key_of(value)),
            key=claim.key,
            subject=claim.subject,
            phase=claim.phase,
            attempt=claim.attempt,
            waits_for=self.phase.options.on,
        )
        sources = Sources(results=self._results, signal=self._signal, secret=self.secrets.get, check=self._check())
        drafts = Drafts(claim.run_id, claim.phase, self.flow.actions)
        return self.context_type(attempt, value, sources, writes=self._writes(), records=drafts)

    def _results(self) -> Mapping[str, Any]:
        if len(self._known_results) < self.claim.cursor:
            recorded = self._process.database.ask(lambda conn: read.results(conn, self.claim.run_id))
            self._known_results.update(recorded)
        return self._known_results

    def _check(self) -> Callable[[], None]:
        process = self._process
        return Check(self.claim, database=process.database, keeper=process.keeper, stopping=process.stopping)

    def _writes(self) -> BodyWrites:
        return ClaimedWrites(self._process.database, self.claim)

    def _signal(self, name: str) -> tuple[Any] | None:
        return self._process.database.ask(lambda conn: read.signal(conn, self.claim.run_id, name))


def secrets_of(flow: DeclaredFlow[Any], claim: Claim) -> Secrets:
    """What the attempt of a claim may ask for."""
    return Secrets(flow.resolvers, may=lambda reference: flow.secret_fields.may_resolve(reference, claim.input))
