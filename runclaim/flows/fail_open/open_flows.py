"""What an application needs for its flows that fail open, and loads only with the first of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.flows.fail_open.backlog import Backlog
from runclaim.flows.fail_open.deliverer import Deliverer
from runclaim.flows.fail_open.enqueue import enqueue_open

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runclaim.errors import LedgerUnavailable
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.run.runner import Runner
    from runclaim.ledger.enqueue import Enqueued
    from runclaim.ledger.new_run import NewRun


class OpenFlows:
    """One for each application with flows that fail open: its enqueues have a fallback from then on."""

    def __init__(self, ledger: LedgerAccess) -> None:
        self._ledger = ledger
        self.backlog = Backlog(ledger)
        ledger.fallback = self._enqueue

    def _enqueue(self, wanted: Sequence[NewRun], away: LedgerUnavailable) -> list[Enqueued]:
        return enqueue_open(self._ledger, self.backlog, wanted, away)

    def deliverer(self, runner: Callable[[], Runner], *, worker: str, stopping: Callable[[], bool]) -> Deliverer:
        """What does as the messages of these flows say; `runner` is asked for at each delivery."""
        return Deliverer(
            runner=runner, ledger=self._ledger, records=self.backlog.records, worker=worker, stopping=stopping
        )
