"""What a delivery came to, and which phases it may take along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from runclaim.errors import LedgerUnavailable
from runclaim.flows.run.ending import Ended, Ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.declare.phase import Phase
    from runclaim.ledger.fence import Claim
    from runclaim.states import RunState

#: Whether the second phase may follow the first in one delivery.
Inline: TypeAlias = "Callable[[Phase[Any, Any], Phase[Any, Any]], bool]"


class Unanswered(LedgerUnavailable):
    """The first claim of a delivery had no answer. `owner` is its nonce: it may have been made after all."""

    def __init__(self, why: str, owner: str) -> None:
        super().__init__(why)
        self.owner = owner


@dataclass(frozen=True, slots=True)
class Execution:
    """An attempt and what came of it; `claim` is `None` for a duplicate."""

    claim: Claim | None
    ended: Ended | None
    #: The run's state after it; `None` when the claim was lost.
    state: RunState | None = None

    @property
    def ending(self) -> Ending:
        """How it ended."""
        return Ending.DUPLICATE if self.ended is None else self.ended.ending
