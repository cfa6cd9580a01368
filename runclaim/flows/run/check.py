"""Whether an attempt still counts: what the keeper has heard, whether the worker stops, and what the ledger says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runclaim import logs
from runclaim.errors import Canceled, ClaimLost, LedgerRefused, LedgerUnavailable, Released
from runclaim.ledger import read
from runclaim.pause import Pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.database import Database
    from runclaim.flows.run.lease_keeper import Keeper
    from runclaim.ledger.fence import Claim

logger: Final = logs.logger("runclaim.runner")

#: The ledger itself is asked at most this often; between, the keeper is believed.
_ASK_SECONDS: Final = 1.0


class Check:
    """The check of one claim; calling it raises ClaimLost (Canceled, Released) once the claim no longer counts."""

    def __init__(self, claim: Claim, *, database: Database, keeper: Keeper, stopping: Callable[[], bool]) -> None:
        self._claim, self._database, self._keeper, self._stopping = claim, database, keeper, stopping
        self._asked = Pause(_ASK_SECONDS)
        self._asked.begin()

    def __call__(self) -> None:
        """Return only while the claim is current."""
        claim = self._claim
        if (lost := self._keeper.trouble(claim)) is not None:
            raise lost
        if self._stopping():
            raise Released(claim.run_id, claim.phase, claim.fence, "the worker is shutting down")
        if self._asked.left:
            return
        self._asked.begin()
        try:
            standing = self._database.ask(lambda conn: read.standing(conn, claim.run_id), patience=0)
        except (LedgerUnavailable, LedgerRefused) as away:
            # What is not known is not lost: the body continues, and the fence decides at its end.
            logger.debug("%s", away)
            return
        if standing is None or (standing.fence, standing.owner) != (claim.fence, claim.owner):
            state = "purged" if standing is None else standing.state
            raise ClaimLost(claim.run_id, claim.phase, claim.fence, f"the run is {state}")
        if standing.cancel_requested:
            raise Canceled(claim.run_id, claim.phase, claim.fence, "cancellation was requested")
