"""A completion as data: what ended, where its run goes next, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from runclaim.ledger.actions.plan import NewAction
    from runclaim.ledger.body.findings import NewFinding
    from runclaim.ledger.fence import Claim
    from runclaim.states import RunState


@dataclass(frozen=True, slots=True)
class NextPhase:
    """Where a run goes on: with `owner` it is claimed at once, without it goes through the broker."""

    phase: str
    queue: str | None
    max_attempts: int
    max_losses: int
    lease: timedelta
    max_duration: timedelta
    #: The nonce of the next claim; `None` when the phase has to go through the broker.
    owner: str | None
    #: When the ledger publishes the run if nobody else has.
    dispatch_after: timedelta
    #: The signal that the phase waits for, unless the run has received it.
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A phase whose body ended well: its claim, its result as JSON text, and where the run goes next."""

    claim: Claim
    result: str
    worker: str
    ran: timedelta
    next: NextPhase | None
    skipped: str | None = None
    findings: tuple[NewFinding, ...] = ()
    actions: tuple[NewAction, ...] = ()


@dataclass(frozen=True, slots=True)
class Moved:
    """What a completion did: the run's state now, its fence, and the claim of the next phase if it was taken."""

    run_id: str
    state: RunState
    fence: int
    claim: Claim | None
