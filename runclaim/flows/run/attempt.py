"""
One attempt: the body runs, and what came of it is told in one value. Nothing is written here.

An exception a body raises is an error of its attempt; an exception that ends the process (SystemExit,
KeyboardInterrupt) passes through, and the runner gives the claim back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from runclaim import failpoints
from runclaim.errors import (
    Blocked,
    Canceled,
    ClaimLost,
    InputError,
    Released,
    Retry,
    RunclaimError,
    Skip,
)
from runclaim.flows.body.context import Context
from runclaim.flows.body.drafts import Drafts
from runclaim.flows.body.in_body import in_body
from runclaim.flows.declare.secret_references import Secrets
from runclaim.flows.run.check import Check
from runclaim.flows.run.claimed_writes import Notes
from runclaim.ledger import read
from runclaim.secrets import redact
from runclaim.tracebacks import error_data, said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Session

    from runclaim.database import Database
    from runclaim.flows.body.context import Notes as BodyNotes
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.run.lease_keeper import Keeper
    from runclaim.ledger.actions.plan import NewAction
    from runclaim.ledger.body.findings import NewFinding
    from runclaim.ledger.fence import Claim
    from runclaim.retries import Backoff


class Ending(StrEnum):
    """How an attempt ended; the words that Flower shows."""

    SUCCESS = "success"
    SKIPPED = "skipped"
    RETRY = "retry"
    FAILURE = "failure"
    BLOCKED = "blocked"
    CANCELED = "canceled"
    CLAIMLOST = "claimlost"
    RELEASED = "released"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a body: a result to record, an error to settle, or nothing that still counts."""

    ending: Ending
    ran: timedelta
    result: str = "null"
    writes: tuple[Callable[[Session], object], ...] = ()
    findings: tuple[NewFinding, ...] = ()
    actions: tuple[NewAction, ...] = ()
    exception: BaseException | None = None
    delay: timedelta = timedelta(0)
    #: Redacts a text: what looks like a secret, and the values that the attempt was given.
    hide: Callable[[str], str] = redact

    def error(self) -> dict[str, Any]:
        """The exception as the ledger keeps it: redacted, cut to 8 kB."""
        return error_data(self.exception or RunclaimError("ended without an error"), self.hide)

    @property
    def skipped(self) -> str | None:
        """Why the phase had nothing to do; `None` unless its body raised `Skip`."""
        return said(self.exception, self.hide) if self.exception and self.ending is Ending.SKIPPED else None


class Attempt:
    """A claim whose body is about to run."""

    context_type: ClassVar[type[Context[Any]]] = Context

    def __init__(
        self,
        claim: Claim,
        *,
        flow: DeclaredFlow[Any],
        phase: Phase[Any, Any],
        database: Database,
        keeper: Keeper,
        stopping: Callable[[], bool],
        known_results: dict[str, Any],
    ) -> None:
        self.claim, self.flow, self.phase = claim, flow, phase
        self._database, self._keeper, self._stopping = database, keeper, stopping
        self._known = known_results
        self.secrets = secrets_of(flow, claim)

    def run(self) -> Ended:
        """Run the body once."""
        started = time.monotonic()
        ended = self._outcome(started)
        failpoints.hit("body.after")
        return ended

    def _outcome(self, started: float) -> Ended:
        context, result, caught = None, "null", None
        try:
            context = self._context()
            failpoints.hit("body.before")
            with in_body(self.phase.task_name):
                value = self.phase(context)
            result = self.phase.result_type.dump(value)
        except Exception as error:  # noqa: BLE001 - whatever a body raises is the end of its attempt
            caught = self.phase.meaning(error)
        ended = self.ended_by(caught, timedelta(seconds=time.monotonic() - started))
        if context is None:
            return ended
        return replace(
            ended,
            result=result,
            writes=tuple(context.completions),
            findings=tuple(context.records.findings),
            actions=tuple(context.records.actions),
        )

    def ended_by(self, caught: Exception | None, ran: timedelta) -> Ended:
        """How the attempt ends that raised this, or nothing."""
        ending = ending_of(caught, self.claim)
        delay = delay_after(caught, self.phase.options.backoff, self.claim.attempt)
        delay = delay if ending is Ending.RETRY else timedelta(0)
        return Ended(ending, ran, exception=caught, delay=delay, hide=self.secrets.redact)

    def _context(self) -> Context[Any]:
        claim = self.claim
        value = self.flow.input_type.load(claim.input)
        return self.context_type(
            run_id=claim.run_id,
            identity=self.flow.identity_of(claim, value),
            key=claim.key,
            subject=claim.subject,
            phase=claim.phase,
            attempt=claim.attempt,
            input=value,
            results=self._results,
            check=self._check(),
            records=Drafts(claim.run_id, claim.phase, self.flow.actions),
            notes=self._notes(),
            on=self.phase.options.on,
            signal=self._signal,
            secret=self.secrets.get,
        )

    def _results(self) -> Mapping[str, Any]:
        if len(self._known) < self.claim.cursor:
            self._known.update(self._database.ask(lambda conn: read.results(conn, self.claim.run_id)))
        return self._known

    def _check(self) -> Callable[[], None]:
        return Check(self.claim, database=self._database, keeper=self._keeper, stopping=self._stopping)

    def _notes(self) -> BodyNotes:
        return Notes(self._database, self.claim)

    def _signal(self, name: str) -> tuple[Any] | None:
        return self._database.ask(lambda conn: read.signal(conn, self.claim.run_id, name))


def secrets_of(flow: DeclaredFlow[Any], claim: Claim) -> Secrets:
    """What the attempt of a claim may ask for."""
    return Secrets(flow.resolvers, may=lambda reference: flow.secret_fields.may_resolve(reference, claim.input))


#: The first class that fits decides; any other exception is an error, and errors are tried again.
_ENDINGS: Final = (
    (Skip, Ending.SKIPPED),
    (Released, Ending.RELEASED),
    (Canceled, Ending.CANCELED),
    (ClaimLost, Ending.CLAIMLOST),
    (Blocked, Ending.BLOCKED),
    # The same code would give the same refusal: no other attempt helps.
    (InputError, Ending.FAILURE),
)


def ending_of(caught: BaseException | None, claim: Claim) -> Ending:
    """How an attempt ends that raised this, or nothing. A lost claim of another run is an error as any."""
    if caught is None:
        return Ending.SUCCESS
    if isinstance(caught, ClaimLost) and (caught.run_id, caught.fence) != (claim.run_id, claim.fence):
        return Ending.RETRY
    return next((ending for kind, ending in _ENDINGS if isinstance(caught, kind)), Ending.RETRY)


def ended_in_completion(error: Exception, ended: Ended, claim: Claim, backoff: Backoff) -> Ended:
    """How an attempt ends whose body ended well and one of whose `in_completion` functions raised this."""
    ending = ending_of(error, claim)
    if ending is Ending.SKIPPED:
        return replace(ended, ending=ending, result="null", writes=(), exception=error)
    delay = delay_after(error, backoff, claim.attempt) if ending is Ending.RETRY else timedelta(0)
    return Ended(ending, ended.ran, exception=error, delay=delay, hide=ended.hide)


def delay_after(error: BaseException | None, backoff: Backoff, attempt: int) -> timedelta:
    """How long the next attempt waits: what the error asks for, else the backoff."""
    return backoff.delay_after(attempt, wanted=error.after if isinstance(error, Retry) else None)
