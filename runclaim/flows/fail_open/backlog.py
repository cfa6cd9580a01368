"""The local records of this machine, and their way to the ledger once it is back."""

from __future__ import annotations

import threading
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runclaim import forks, logs
from runclaim.errors import LedgerClosed, RunclaimError
from runclaim.flows.fail_open.local_records import LocalRecords
from runclaim.flows.fail_open.reconcile import Reconciler

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.flows.client.access import LedgerAccess

logger: Final = logs.logger("runclaim.fail_open")

#: How often a process looks for what was done while the ledger was away.
EVERY_SECONDS: Final = 5.0


class Backlog:
    """What this machine owes the ledger. Nothing is read or started before something is owed."""

    def __init__(self, ledger: LedgerAccess) -> None:
        self._ledger = ledger
        self._reconciling = threading.Lock()
        self._watching = forks.Lock()
        self._is_watched = False

    @cached_property
    def records(self) -> LocalRecords:
        """One file per run, in the folder that the processes of this machine share."""
        return LocalRecords(Path(self._ledger.config.fail_open_folder).absolute())

    def reconcile(self) -> int:
        """Record in the ledger what is here; returns how many records went. Raises: LedgerUnavailable, LedgerClosed."""
        self._ledger.require_open()
        return Reconciler(self._ledger, self.records).reconcile_all()

    def reconcile_soon(self) -> None:
        """The same in a thread, so that the caller need not wait; one at a time, and only when there is something."""
        if self._reconciling.locked() or self.records.is_empty:
            return
        threading.Thread(target=self._reconcile_quietly, name="runclaim-reconcile", daemon=True).start()

    def reconcile_repeatedly(self, timer: Callable[[float, Callable[[], None]], object]) -> None:
        """Have `timer` call it every few seconds, for a worker."""
        timer(EVERY_SECONDS, self.reconcile_soon)

    def watch(self) -> None:
        """Reconcile as soon as the ledger is back, in a process that enqueues and may have no worker beside it."""
        with self._watching:
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="runclaim-backlog", daemon=True).start()

    def _watch(self) -> None:
        is_worth_while = True
        while is_worth_while and not self.records.is_empty:
            time.sleep(EVERY_SECONDS)
            is_worth_while = self._reconcile_quietly()
        self._is_watched = False

    def _reconcile_quietly(self) -> bool:
        """Returns: whether it is worth while to try again."""
        with self._reconciling:
            try:
                self.reconcile()
            except LedgerClosed:
                return False
            except RunclaimError as away:
                logger.debug("local records are not reconciled yet: %s", away)
            except Exception:
                logger.warning("could not reconcile the local records", exc_info=True)
        return True
