"""What a worker process needs to run phases: the ledger, the keeper, the broker and this process's name."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final

from runclaim import forks, logs, tracing
from runclaim.database import Database
from runclaim.errors import RunclaimError
from runclaim.flows.actions.outcomes import Outcomes
from runclaim.flows.declare.registry import register_flows
from runclaim.flows.run.group_minder import Minder
from runclaim.flows.run.lease_keeper import PATIENCE, Keeper
from runclaim.flows.run.pace import Pace
from runclaim.flows.run.process import Process
from runclaim.flows.run.runner import Runner
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.flows.upkeep.rescue import rescue_claims_of
from runclaim.listeners.tell import register as register_listeners
from runclaim.pause import Pause
from runclaim.tasks.process_role import ProcessRole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from runclaim.broker import Broker
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.fail_open.deliverer import Deliverer
    from runclaim.flows.fail_open.open_flows import OpenFlows

logger: Final = logs.logger("runclaim.worker")

_RING_SECONDS: Final = 1.0


class Runtime:
    """One for each attached app; a forked pool child keeps its copy."""

    def __init__(
        self, app: Celery, ledger: LedgerAccess, broker: Broker, flows: Mapping[str, DeclaredFlow[Any]]
    ) -> None:
        self.app, self.ledger, self.broker, self.flows = app, ledger, broker, flows
        #: Only where a flow fails open.
        self.open_flows: OpenFlows | None = None
        self.role = ProcessRole()
        self.flags = self.role.flags
        self.pace, self.minder = Pace(), Minder()
        #: Whether this process has looked for subjects without runs; see `flows.upkeep.purge.end_unused_subjects`.
        self.has_seen_subjects = False
        self._keeper: Keeper | None = None
        self._making = forks.Lock()
        self._rang = Pause(_RING_SECONDS)
        self.outcomes = Outcomes(lambda: ledger.database, self.count)

    def register_flows(self) -> None:
        """Tell the ledger of this application's flows, for doors that do not import it; writes only what is new."""
        if changed := register_flows(self.ledger.database, self.flows.values(), self.ledger.config):
            logger.info("registered in the ledger: %s", ", ".join(changed))

    def register_flows_soon(self) -> None:
        """The same in a thread; what goes wrong there is tried again with the next call. Raises: LedgerClosed."""
        self.ledger.require_open()

        def register() -> None:
            try:
                self.register_flows()
            except RunclaimError as refused:
                logger.debug("flows are not registered: %s", refused)

        threading.Thread(target=register, name="runclaim-release", daemon=True).start()

    def runner(self, node: str) -> Runner:
        """The runner of this process; `node` is the worker's Celery name."""
        return Runner(
            Process(
                database=self.ledger.database,
                keeper=self.keeper,
                publisher=self.broker,
                config=self.ledger.config,
                pace=self.pace,
                minder=self.minder,
                worker=f"{node}:{os.getpid()}",
                stopping=lambda: self.role.is_stopping,
            )
        )

    def allow_fail_open(self) -> None:
        """Prepare for a flow that fails open; other applications load none of it."""
        from runclaim.flows.fail_open.open_flows import OpenFlows

        self.open_flows = self.open_flows or OpenFlows(self.ledger)

    def deliverer(self, flow: DeclaredFlow[Any], node: str) -> Runner | Deliverer:
        """What does as the messages of the flow say in this process. Raises: LedgerUnavailable, LedgerClosed."""
        if self.open_flows is None or not flow.fail_open:
            return self.runner(node)
        return self.open_flows.deliverer(
            lambda: self.runner(node), worker=f"{node}:{os.getpid()}", stopping=lambda: self.role.is_stopping
        )

    @property
    def keeper(self) -> Keeper:
        """The keeper of this process; its connection is its own, so no body can take it away. Raises: LedgerClosed."""
        self.ledger.require_open()
        with self._making:
            if self._keeper is None:
                database = Database(self.ledger.config.database_url, pool_size=1, patience=PATIENCE)
                self._keeper = Keeper(database, on_overdue=self.role.end_overdue)
            return self._keeper

    def count(self, name: str, of: str) -> None:
        """Add one to a total of a flow, or of a kind of actions; written to the ledger in the background."""
        self.keeper.count(name, of)

    def close(self, *, for_good: bool = False) -> None:
        """Publish and record what waits, write totals, export the last spans; `for_good` when the application ends."""
        tracing.flush()
        self.broker.flush()
        self.outcomes.close()
        if self._keeper is not None:
            try:
                (self._keeper.shut if for_good else self._keeper.close)()
            except RunclaimError as error:
                logger.warning("the totals of this process were not written: %s", error)

    def give_back(self, worker: str) -> None:
        """A pool child died: its claims are queued again at once, in a thread so as not to block the worker."""

        def work() -> None:
            try:
                rescued = rescue_claims_of(worker, self.ledger.database, flows=self.flows)
                if rescued:
                    logger.warning("%s died; %d of its claims were given back", worker, rescued)
                    self.dispatch()
            except Exception:
                logger.warning("could not give back the claims of %s; rescue will", worker, exc_info=True)

        threading.Thread(target=work, name="runclaim-give-back", daemon=True).start()

    def add_listeners(self) -> None:
        """Let new listeners listen from here on. Raises: LedgerUnavailable, LedgerClosed."""
        self.ledger.require_open()
        if self.ledger.listeners:
            register_listeners(self.ledger.database, self.ledger.listeners)

    def ring_listeners(self) -> None:
        """Something happened in this process: have the listeners told, at most once a second."""
        if self.ledger.listeners and not self._rang.left:
            self._rang.begin()
            self.broker.ring_listeners()

    def dispatch(self) -> int:
        """Publish what is due; returns how many messages went."""
        if self.broker.is_left_alone:
            # A stamp without a message would double the run's spacing for nothing.
            return 0
        return dispatch_due(
            self.ledger.database, self.broker, flows=self.flows, spacing=self.ledger.config.dispatch_after
        )
