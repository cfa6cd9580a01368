"""Moving a phase as a `Change`: runs that were read a moment ago go on with its new name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runclaim.keys import nonce
from runclaim.ledger.doors import move_phase as ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.description import PhaseDescription
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.doors.pinned_runs import PhaseMove, Pinned


@dataclass(frozen=True, slots=True)
class PhaseMoved:
    """The runs that were moved, and the messages of those that are due."""

    run_ids: list[str]
    due: list[Due]


@dataclass(frozen=True, slots=True)
class MovePhase:
    """Move the phase of these runs, those of them that have not changed since they were read."""

    move: PhaseMove
    target: PhaseDescription
    pinned: Sequence[Pinned]
    by: str = ""
    call: str = field(default_factory=nonce)

    def work(self, conn: Connection) -> PhaseMoved:
        """What was moved. Raises: InputError."""
        target = self.target
        run_ids = ledger.move_phase(
            conn,
            self.move,
            self.pinned,
            queue=target.queue,
            max_attempts=target.max_attempts,
            max_losses=target.max_losses,
            by=self.by,
            call=self.call,
        )
        return PhaseMoved(run_ids, ledger.due(conn, run_ids))

    def read_back(self, conn: Connection) -> PhaseMoved | None:
        """As `work`, if this very call has moved anything."""
        run_ids = ledger.moved(conn, [each.run_id for each in self.pinned], call=self.call)
        return PhaseMoved(run_ids, ledger.due(conn, run_ids)) if run_ids else None

    def publish(self, access: LedgerAccess, outcome: PhaseMoved) -> None:
        """Ring for the runs that are due."""
        if outcome.due:
            access.publisher.publish(access.with_inputs(outcome.due))
