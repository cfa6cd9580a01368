"""How an attempt ends: what its body raised decides, or that it raised nothing. Nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import Blocked, Canceled, ClaimLost, InputError, Released, Retry, RunclaimError, Skip
from runclaim.secrets import kind_of, redact
from runclaim.tracebacks import error_data, message_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

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


#: The phase of such an attempt is complete.
COMPLETE: Final = frozenset({Ending.SUCCESS, Ending.SKIPPED})


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a body: a result to record, an error to settle, or nothing that still counts."""

    ending: Ending
    ran: timedelta
    result: str = "null"
    writes: tuple[Callable[[Session], object], ...] = ()
    findings: tuple[NewFinding, ...] = ()
    actions: tuple[NewAction, ...] = ()
    output_ref: str | None = None
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
        return message_of(self.exception, self.hide) if self.exception and self.ending is Ending.SKIPPED else None


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


def ending_of(error: BaseException | None, claim: Claim) -> Ending:
    """How an attempt ends that raised this, or nothing. A lost claim of another run is an error as any."""
    if error is None:
        return Ending.SUCCESS
    if isinstance(error, ClaimLost) and (error.run_id, error.fence) != (claim.run_id, claim.fence):
        return Ending.RETRY
    return next((ending for kind, ending in _ENDINGS if isinstance(error, kind)), Ending.RETRY)


def ended_by(
    error: BaseException | None,
    *,
    claim: Claim,
    backoff: Backoff,
    ran: timedelta,
    hide: Callable[[str], str] = redact,
) -> Ended:
    """How an attempt ends that took this long and raised this, or nothing; it has no result yet."""
    ending, delay = ending_of(error, claim), timedelta(0)
    if ending is Ending.RETRY:
        delay = backoff.delay_after(claim.attempt, wanted=error.after if isinstance(error, Retry) else None)
    return Ended(ending, ran, exception=error, delay=delay, hide=hide)


def ended_in_completion(error: Exception, ended: Ended, *, claim: Claim, backoff: Backoff) -> Ended:
    """How an attempt ends whose body ended well and one of whose `in_completion` functions raised this."""
    if ending_of(error, claim) is Ending.SKIPPED:
        return replace(ended, ending=Ending.SKIPPED, result="null", writes=(), exception=error)
    return ended_by(error, claim=claim, backoff=backoff, ran=ended.ran, hide=ended.hide)


def ended_midway(
    gone: BaseException, *, claim: Claim, backoff: Backoff, is_stopping: bool, hide: Callable[[str], str]
) -> Ended:
    """
    How an attempt ends in whose middle something ended its process or its delivery.

    A worker that shuts down gives the attempt back. Whatever else ends it (`sys.exit` in the body, a time limit) is an
    error of the attempt: given back, such a body would start again for ever.
    """
    if is_stopping:
        why = f"{kind_of(gone)} ended the delivery"
        released = Released(claim.run_id, claim.phase, claim.fence, why)
        return Ended(Ending.RELEASED, timedelta(0), exception=released)
    return Ended(Ending.RETRY, timedelta(0), exception=gone, delay=backoff.delay(claim.attempt), hide=hide)
