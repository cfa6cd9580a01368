"""What a delivery came to, and who is told of it while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runclaim.errors import LedgerUnavailable
from runclaim.flows.run.attempt import Ended, Ending

if TYPE_CHECKING:
    from runclaim.flows.run.body import Body
    from runclaim.ledger.fence import Claim
    from runclaim.states import RunState


class Watcher(Protocol):
    """Who runs each body as the application wants it run, and is told of each attempt as it starts and ends."""

    def started(self, claim: Claim) -> None:
        """A body is about to run."""
        ...

    def perform(self, body: Body) -> None:
        """Run the body and have its end recorded: `body.record(body.run())`, and what belongs around the two."""
        ...

    def ended(self, claim: Claim, ended: Ended, state: RunState | None) -> None:
        """It has ended; `state` is the run's, `None` when the claim was lost."""
        ...


class Unanswered(LedgerUnavailable):
    """The first claim of a delivery had no answer. `owner` is its nonce: it may have been made after all."""

    def __init__(self, why: str, owner: str) -> None:
        super().__init__(why)
        self.owner = owner


@dataclass(frozen=True, slots=True)
class Execution:
    """The first attempt of a delivery and what came of it; `claim` is `None` for a duplicate."""

    claim: Claim | None
    ended: Ended | None
    #: The run's state after it; `None` when the claim was lost.
    state: RunState | None = None

    @property
    def ending(self) -> Ending:
        """How it ended."""
        return Ending.DUPLICATE if self.ended is None else self.ended.ending
