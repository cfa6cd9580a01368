"""A completion as data: what ended, where its run goes next, what came of it, and what the journal is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runclaim.events import EventType
from runclaim.ledger.journal import Entry
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

    from runclaim.ledger.actions.plan import NewAction
    from runclaim.ledger.body.findings import NewFinding
    from runclaim.ledger.fence import Claim


#: Of what a run may be after a phase that is not its last, the states that the journal is told of.
_GOES_ON: Final = (RunState.RUNNING, RunState.CANCELED)


@dataclass(frozen=True, slots=True)
class NextPhase:
    """Where a run continues: with `owner` it is claimed at once, without it goes through the broker."""

    phase: str
    queue: str | None
    max_attempts: int
    max_losses: int
    lease: timedelta
    max_duration: timedelta
    #: The nonce of the next claim; `None` when the phase has to go through the broker.
    owner: str | None
    #: When the ledger publishes the run if it was not published.
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
    #: Where its output lies.
    output_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """What a completion did: the run's state now, its fence, and the claim of the next phase if it was taken."""

    run_id: str
    state: RunState
    fence: int
    claim: Claim | None


def entries(completion: Completion, after: RunState, canceled_by: Mapping[str, str]) -> Iterator[Entry]:
    """The entries of a completion that left its run in the state `after`; `canceled_by` maps run ids to who asked."""
    yield _completed(completion)
    yield from _gone_on(completion, after, canceled_by)


def possible_entries(completion: Completion) -> Iterator[tuple[Entry, RunState | None]]:
    """Each entry with the state of its run in which it comes true, for the statement that finds out which it is."""
    yield _completed(completion), None
    for after in (RunState.SUCCEEDED,) if completion.next is None else _GOES_ON:
        for entry in _gone_on(completion, after, {}):
            yield entry, after


def _completed(completion: Completion) -> Entry:
    claim = completion.claim
    kind = EventType.PHASE_COMPLETED if completion.skipped is None else EventType.PHASE_SKIPPED
    return Entry(claim.run_id, kind, claim.fence + 1, claim.phase, claim.attempt)


def _gone_on(completion: Completion, after: RunState, canceled_by: Mapping[str, str]) -> Iterator[Entry]:
    claim, following = completion.claim, completion.next
    fence = claim.fence + 1
    if after is RunState.RUNNING and following is not None:
        yield Entry(claim.run_id, EventType.PHASE_STARTED, fence, following.phase, 1)
    elif after is RunState.SUCCEEDED:
        yield Entry(claim.run_id, EventType.RUN_SUCCEEDED, fence, data={"worker": completion.worker})
    elif after is RunState.CANCELED:
        by = canceled_by.get(claim.run_id, "")
        yield Entry(claim.run_id, EventType.RUN_CANCELED, fence, data={"by": by, "worker": completion.worker})
