"""Erasing as a `Change`: what ended runs hold is blanked for good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runclaim.errors import StateConflict
from runclaim.keys import nonce
from runclaim.ledger import read
from runclaim.ledger.history.erase import erase, erased
from runclaim.states import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess


@dataclass(frozen=True, slots=True)
class Erase:
    """Erase runs, all or none of them; with `keys` the texts of their keys and subjects too."""

    run_ids: Collection[str]
    by: str = ""
    keys: bool = False
    call: str = field(default_factory=nonce)

    def work(self, conn: Connection) -> set[str]:
        """The runs that were erased: all but those that are gone. Raises: StateConflict, InputError."""
        done = erase(conn, self.run_ids, by=self.by, call=self.call, keys=self.keys)
        for run_id in self.run_ids:
            if run_id not in done and (standing := read.standing(conn, run_id)) is not None:
                raise NotEnded(run_id, standing.state)
        return done

    def read_back(self, conn: Connection) -> set[str] | None:
        """As `work`, if this very call has erased anything."""
        return erased(conn, self.run_ids, call=self.call) or None

    def publish(self, access: LedgerAccess, outcome: set[str]) -> None:
        """Nothing is due by it."""


class NotEnded(StateConflict):
    """A run that is to be erased is still live, or one of its actions has not ended. Cancel it or wait; then erase."""

    def __init__(self, run_id: str, state: str) -> None:
        over = "one of its actions is still to be sent or resolved; see: runclaim actions list --run"
        live = "let it end first, or cancel it: runclaim runs cancel"
        super().__init__(run_id, "erase", state, f"{over if state in TERMINAL else live} {run_id}")
