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
    from runclaim.flows.client.access import LedgerAccess

logger: Final = logs.logger("runclaim.fail_open")

#: How often a process looks for what was done while the ledger was away.
EVERY_SECONDS: Final = 5.0


class Backlog:
    """What this machine owes the ledger. Nothing is read or started before something is owed."""

    def __init__(self, ledger: LedgerAccess) -> None:
        self._ledger = ledger
        self._telling = threading.Lock()
        self._watching = forks.Lock()
        self._is_watched = False

    @cached_property
    def records(self) -> LocalRecords:
        """One file a run, in the folder that the processes of this machine share."""
        return LocalRecords(Path(self._ledger.config.fail_open_folder).absolute())

    def tell(self) -> int:
        """Tell the ledger what the records hold; returns how many went. Raises: LedgerUnavailable, LedgerClosed."""
        self._ledger.require_open()
        return Reconciler(self._ledger, self.records).all()

    def tell_soon(self) -> None:
        """The same in a thread, so that the caller goes on; one at a time, and only when there is something."""
        if self._telling.locked() or self.records.is_empty:
            return
        threading.Thread(target=self._tell_quietly, name="runclaim-reconcile", daemon=True).start()

    def watch(self) -> None:
        """Tell the ledger as soon as it is back: for a process that enqueues, and may have no worker beside it."""
        with self._watching:
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="runclaim-backlog", daemon=True).start()

    def _watch(self) -> None:
        is_worth_while = True
        while is_worth_while and not self.records.is_empty:
            time.sleep(EVERY_SECONDS)
            is_worth_while = self._tell_quietly()
        self._is_watched = False

    def _tell_quietly(self) -> bool:
        """Returns: whether it is worth while to try again."""
        with self._telling:
            try:
                self.tell()
            except LedgerClosed:
                return False
            except RunclaimError as away:
                logger.debug("local records are not reconciled yet: %s", away)
            except Exception:
                logger.warning("could not reconcile the local records", exc_info=True)
        return True
