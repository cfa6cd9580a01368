"""
The application's side of the ledger: one database, one publisher, and the transactions that callers need.

Reached lazily: declaring flows connects to nothing. The schema is checked once a process, before the first use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

from runclaim import failpoints, migrations
from runclaim.database import Database
from runclaim.errors import ConfigError, RunNotFound, StateConflict
from runclaim.flows.handle import Run
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.dispatch import Due
from runclaim.ledger.enqueue import Enqueued, enqueue
from runclaim.ledger.identity import find_runs
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.ledger.signal import Answer, Signaled, delivered
from runclaim.states import LIVE, RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import Connection

    from runclaim.config import Config
    from runclaim.flows.action import Action
    from runclaim.flows.flow import Flow
    from runclaim.flows.publishing import Publisher
    from runclaim.flows.signaling import Signal
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView

T = TypeVar("T")


class Ledger:
    """What flows and handles ask of the database and the broker."""

    def __init__(self, config: Callable[[], Config], publisher: Callable[[], Publisher]) -> None:
        self._config, self._publisher = config, publisher
        self._database: Database | None = None
        self._checked_in = 0
        #: The declared actions of the application, by their kinds.
        self.actions: dict[str, Action] = {}

    @property
    def config(self) -> Config:
        """The application's settings; read on first use, when Celery's configuration is complete."""
        return self._config()

    @property
    def publisher(self) -> Publisher:
        """The way to the broker."""
        return self._publisher()

    @property
    def database(self) -> Database:
        """The ledger's database, its schema checked. Raises: SchemaBehind."""
        if self._database is None:
            self._database = Database(self.config.database_url, patience=self.config.ledger_patience)
        if self._checked_in != os.getpid():
            migrations.require_current(self._database)
            self._checked_in = os.getpid()
        return self._database

    def require_schema(self) -> None:
        """For what runs on somebody else's connection. Raises: SchemaBehind."""
        _ = self.database

    def require_kind(self, dialect: str) -> None:
        """The application's transaction has to be one of the ledger's database. Raises: ConfigError."""
        if dialect != (kind := self.database.url.get_backend_name()):
            raise ConfigError(
                f"the session writes to {dialect} and the ledger is {self.database}: workers would never see the run,"
                f" which needs {kind}. Set RUNCLAIM_DATABASE_URL to the session's database, or enqueue without session="
            )

    def enqueue(self, wanted: Sequence[NewRun]) -> list[Enqueued]:
        """Make the runs in a transaction of their own, then publish what was created."""

        def work(conn: Connection) -> list[Enqueued]:
            made = enqueue(conn, wanted)
            failpoints.hit("enqueue.before_commit")
            return made

        made = self.database.run(work)
        failpoints.hit("enqueue.after_commit")
        self.publish(wanted, made)
        return made

    def publish(self, wanted: Sequence[NewRun], made: Sequence[Enqueued]) -> None:
        """Ring for every run that was created and is due now, none that waits. Never raises for a silent broker."""
        self.publisher.publish(
            [
                Due(new.run_id, 0, new.flow, new.phases[0], new.queue, new.key.text, new.priority)
                for new, found in zip(wanted, made, strict=True)
                if found.created and not new.delay and new.waits_for is None
            ]
        )

    def handle(self, run_id: str, flow: Flow[Any] | None = None, *, created: bool = False) -> Run:
        """A handle on a run."""
        return Run(self, run_id, flow, created=created)

    def ask(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question that only reads. Raises: LedgerUnavailable."""
        return self.database.ask(question)

    def view(self, run_id: str) -> RunView:
        """The run as it stands. Raises: RunNotFound."""
        found = self.database.ask(lambda conn: read.run(conn, run_id))
        if found is None:
            raise RunNotFound(run_id)
        return found

    def results(self, run_id: str) -> dict[str, Any]:
        """Phase → recorded result."""
        return self.database.ask(lambda conn: read.results(conn, run_id))

    def cancel(self, run_ids: Collection[str], *, by: str) -> dict[str, RunState]:
        """Cancel what can be; see `ledger.cancel`."""
        return self.database.run(lambda conn: cancel(conn, run_ids, by=by))

    def retry(self, run_id: str, *, by: str) -> None:
        """Start a failed run's failed phase again. Raises: StateConflict, RunNotFound."""
        self._again("retry", run_id, by)

    def resume(self, run_id: str, *, by: str) -> None:
        """Go on with a blocked run. Raises: StateConflict, RunNotFound."""
        self._again("resume", run_id, by)

    def signal(self, run_id: str, given: Signal) -> None:
        """Deliver a signal once, and ring if the run goes on by it. Raises: StateConflict, RunNotFound."""

        def read_back(conn: Connection) -> Signaled | None:
            return delivered(conn, run_id, given.name, signal_id=given.id)

        told = self.database.run(lambda conn: given.deliver(conn, run_id), read_back=read_back)
        if told.answer is Answer.NOT_LIVE:
            raise StateConflict(run_id, "signal", self.view(run_id).state)
        if told.due is not None:
            self.publisher.publish([told.due])

    def find(self, namespace: str, hashes: Collection[str]) -> list[str]:
        """The ids of the runs that stand under any of these keys."""
        return self.database.ask(lambda conn: find_runs(conn, namespace, hashes))

    def _again(self, verb: str, run_id: str, by: str) -> None:
        move = retry if verb == "retry" else resume
        before = self.view(run_id)

        def read_back(conn: Connection) -> bool | None:
            standing = read.standing(conn, run_id)
            return True if standing is not None and standing.fence > before.fence and standing.state in LIVE else None

        moved = self.database.run(lambda conn: move(conn, run_id, by=by), read_back=read_back)
        view = self.view(run_id)
        if moved:
            self.publisher.publish([Due(run_id, view.fence, view.flow, view.phase, view.queue, view.key, 0)])
            return
        wanted = RunState.FAILED if verb == "retry" else RunState.BLOCKED
        why = "its subject has a newer run" if view.state is wanted else f"only a {wanted} run can be"
        raise StateConflict(run_id, verb, view.state, why)
