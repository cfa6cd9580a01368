"""What a worker process needs to run phases: the ledger, the keeper, the broker and this process's name."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runclaim import failpoints, forks, logs, tracing
from runclaim.broker import DELIVER
from runclaim.database import Database
from runclaim.errors import RunclaimError
from runclaim.flows.actions.hooks import stopped_hooks
from runclaim.flows.actions.outcomes import Outcomes
from runclaim.flows.actions.sender import Sender
from runclaim.flows.declare.flow_record import describe
from runclaim.flows.declare.retention import Retention, of_strangers
from runclaim.flows.fail_open.backlog import Backlog
from runclaim.flows.fail_open.deliverer import Deliverer
from runclaim.flows.fail_open.enqueue import send
from runclaim.flows.run.group_minder import Minder
from runclaim.flows.run.lease_keeper import PATIENCE, Keeper
from runclaim.flows.run.pace import Pace
from runclaim.flows.run.process import Process
from runclaim.flows.run.runner import Runner
from runclaim.flows.upkeep.dispatch import dispatch_due
from runclaim.flows.upkeep.purge import purge_all
from runclaim.ledger.doors.dedup_windows import forget
from runclaim.ledger.doors.idempotency_keys import forget_answers
from runclaim.ledger.doors.registered_flows import register, unregistered
from runclaim.ledger.rescue import rescue, rescue_worker
from runclaim.listeners.tell import register as register_listeners
from runclaim.listeners.tell import tell
from runclaim.pause import Pause
from runclaim.tasks.limits import limit_of
from runclaim.tasks.process_role import ProcessRole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from runclaim.broker import Broker
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow

logger: Final = logs.logger("runclaim.worker")

_BATCH: Final = 500
_RING_SECONDS: Final = 1.0
#: Then it makes room for phases that wait in the same queue.
_DELIVER_AT_MOST: Final = timedelta(seconds=30)


class Runtime:
    """One for each attached app; a forked pool child goes on with its copy."""

    def __init__(
        self, app: Celery, ledger: LedgerAccess, broker: Broker, flows: Mapping[str, DeclaredFlow[Any]]
    ) -> None:
        self.app, self.ledger, self.broker, self.flows = app, ledger, broker, flows
        self.backlog = Backlog(ledger)
        ledger.fallback = partial(send, ledger, self.backlog)
        self.role = ProcessRole()
        self.flags = self.role.flags
        self.pace, self.minder = Pace(), Minder()
        self._keeper: Keeper | None = None
        self._reconciling = threading.Lock()
        self._making = forks.Lock()
        self._rang = Pause(_RING_SECONDS)
        self.outcomes = Outcomes(lambda: ledger.database, self._count)

    def register_flows(self) -> None:
        """Tell the ledger of this application's flows, for doors that do not import it; writes only what is new."""
        records = [describe(each, self.ledger.config) for each in self.flows.values() if each.phases]
        database = self.ledger.database
        if new := database.ask(lambda conn: unregistered(conn, records)):
            told = database.run(lambda conn: register(conn, new))
            logger.info("registered in the ledger: %s", ", ".join(told))

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

    def deliverer(self, node: str) -> Deliverer:
        """What does as messages say in this process."""
        return Deliverer(
            runner=lambda: self.runner(node),
            ledger=self.ledger,
            records=self.backlog.records,
            worker=f"{node}:{os.getpid()}",
            stopping=lambda: self.role.is_stopping,
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

    def _count(self, name: str, kind: str) -> None:
        self.keeper.count(name, kind)

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
        """A pool child died: its claims are queued again at once, in a thread so the worker's loop goes on."""

        def work() -> None:
            try:
                found = self.ledger.database.run(
                    lambda conn: rescue_worker(conn, worker, hooks=stopped_hooks(conn, self.flows))
                )
                if found:
                    logger.warning("%s died; %d of its claims were given back", worker, len(found))
                    self.dispatch()
            except Exception:
                logger.warning("could not give back the claims of %s; rescue will", worker, exc_info=True)

        threading.Thread(target=work, name="runclaim-give-back", daemon=True).start()

    def rescue(self) -> int:
        """Give lapsed claims back, all of them, in batches; returns how many."""
        total = 0
        while True:
            found = self.ledger.database.run(
                lambda conn: rescue(conn, limit=_BATCH, hooks=stopped_hooks(conn, self.flows))
            )
            failpoints.hit("rescue.after_commit")
            total += len(found)
            if len(found) < _BATCH:
                return total

    def deliver(self) -> int:
        """Send the planned actions that are due; returns how many were taken."""
        sender = Sender(
            database=self.ledger.database,
            actions=self.ledger.actions,
            stopping=lambda: self.role.is_stopping,
            count=self._count,
            outcomes=self.outcomes,
        )
        taken, some_are_left = sender.send_due(
            within=_DELIVER_AT_MOST, limit=limit_of(self.app, self.app.tasks[DELIVER])
        )
        if some_are_left and not self.role.is_stopping:
            self.broker.ring_actions(1)
        return taken

    def tell(self) -> int:
        """Count what the journal says and tell the listeners; returns how many events were told."""
        return tell(self.ledger.database, self.ledger.listeners, stopping=lambda: self.role.is_stopping)

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

    def forget(self) -> int:
        """Delete dedup windows that have closed, and answers that nobody asks for again; returns how many went."""
        total = 0
        for verb in (forget, forget_answers):
            while gone := self.ledger.database.run(verb):
                total += gone
        return total

    def purge(self) -> int:
        """Delete finished history past its retention; returns how many runs went."""
        config, known = self.ledger.config, list(self.flows.values())
        keep = of_strangers(config, [flow.retention for flow in known])
        flows = {flow.name: flow.retention.keep(config) for flow in known}
        flows |= {name: Retention().keep(config) for name in self.ledger.plain_names}
        return purge_all(self.ledger.database, keep, flows)
