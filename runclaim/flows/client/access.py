"""
The application's side of the ledger: one database, one publisher, and the transactions that callers need.

Reached lazily: declaring flows connects to nothing. The schema is checked once a process, before the first use.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from runclaim import failpoints, forks, migrations
from runclaim.database import Database
from runclaim.errors import DeclarationError, LedgerClosed, LedgerUnavailable, RunNotFound, StateConflict
from runclaim.flows.client.application_sessions import OwnSessions
from runclaim.flows.client.handle import Run
from runclaim.flows.client.rerun import again
from runclaim.flows.client.ways import ENQUEUE, RERUN, Way
from runclaim.flows.fail_open.backlog import Backlog
from runclaim.flows.fail_open.enqueue import send
from runclaim.flows.messages import message
from runclaim.keys import nonce
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel, canceled
from runclaim.ledger.enqueue import Enqueued, enqueue_at_once
from runclaim.ledger.journal import entries_of
from runclaim.ledger.rerun import rerun
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.ledger.run_keys import find_runs, recorded_fingerprint
from runclaim.ledger.signal import Answer
from runclaim.listeners.listener import Listeners
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from runclaim.config import Config
    from runclaim.flows.actions.action import Action
    from runclaim.flows.client.signal import Signal
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.messages.publisher import Publisher
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import EventView, RunView
    from runclaim.sql.ledger_file import Opened

T = TypeVar("T")


class Ledger:
    """What flows and handles ask of the database and the broker."""

    def __init__(
        self,
        config: Callable[[], Config],
        publisher: Callable[[], Publisher],
        flows: Mapping[str, DeclaredFlow[Any]] | None = None,
    ) -> None:
        self._config, self._publisher = config, publisher
        #: The application's flows by name; the application adds to them as it declares them.
        self.flows: Mapping[str, DeclaredFlow[Any]] = {} if flows is None else flows
        #: What this process has claimed by plain calls.
        self.plain_names: set[str] = set()
        self._database: Database | None = None
        self._making = forks.Lock()
        #: In which process the schema was looked at, and in which file of SQLite.
        self._checked: tuple[int, Opened | None] | None = None
        self._is_closed = False
        self.backlog = Backlog(self)
        #: The declared actions of the application, by their kinds.
        self.actions: dict[str, Action] = {}
        #: What the application puts into the headers of a run's Celery task, here and now; set where there is Celery.
        self.headers_of: Callable[[NewRun], dict[str, Any] | None] = lambda _new: None
        #: Who is told of events, by their names.
        self.listeners = Listeners()
        #: The application's sessions that lead to this ledger.
        self.own_sessions = OwnSessions(self._unchecked, self.require_schema)

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
        """The ledger's database, its schema checked. Raises: LedgerClosed, SchemaBehind."""
        database = self._unchecked()
        if self._checked is None or self._checked != database.standing():
            migrations.require_current(database, was_there=self._checked is not None)
            self._checked = database.standing()
        return database

    def _unchecked(self) -> Database:
        self.require_open()
        with self._making:
            if self._database is None:
                self._database = Database(self.config.database_url, patience=self.config.ledger_patience)
        return self._database

    def require_open(self) -> None:
        """For what may answer without the database. Raises: LedgerClosed."""
        if self._is_closed:
            raise LedgerClosed

    def close(self) -> None:
        """Close the connections for good: every call after this raises LedgerClosed."""
        self._is_closed = True
        if self._database is not None:
            self._database.shut()

    def require_schema(self) -> None:
        """For what runs on somebody else's connection. Raises: LedgerClosed, SchemaBehind."""
        _ = self.database

    def enqueue(self, wanted: Sequence[NewRun], way: Way = ENQUEUE) -> list[Enqueued]:
        """
        Make the runs in a transaction of their own, then publish what was created.

        Runs of a flow that fails open go to the broker without the ledger, should that be away.
        """

        def work(conn: Connection) -> list[Enqueued]:
            made = way.make(conn, wanted)
            failpoints.hit("enqueue.before_commit")
            return made

        ask = way.read_back
        try:
            made = self._enqueue_one(wanted[0]) if way is ENQUEUE and len(wanted) == 1 else None
            made = made or self.database.run(work, read_back=None if ask is None else lambda conn: ask(conn, wanted))
        except LedgerUnavailable as away:
            if way is not ENQUEUE:
                raise
            return send(self, wanted, away=away)
        failpoints.hit("enqueue.after_commit")
        self.publish(wanted, made, are_first=way is ENQUEUE)
        return made

    def _enqueue_one(self, run: NewRun) -> list[Enqueued] | None:
        """The run in one round trip, where that can be; `None` when it was not made, or by a first try in doubt."""
        if run.subject is not None or self.database.url.get_backend_name() != "postgresql":
            return None

        def work(conn: Connection) -> bool:
            failpoints.hit("enqueue.before_commit")
            return bool(enqueue_at_once(conn, [run]))

        return [Enqueued(run.run_id, created=True)] if self.database.run(work, at_once=True) else None

    def publish(self, wanted: Sequence[NewRun], made: Sequence[Enqueued], *, are_first: bool = True) -> None:
        """
        Ring for every run that was created and is due now. Never raises for a silent broker.

        `are_first` says that their keys had no runs before; what else such a message carries only the ledger knows.
        """
        if self._is_closed:
            # The commit of an application that has closed us already; dispatch will ring.
            return
        due = [
            message.first(new=new, flow=self.flows.get(new.flow) if are_first else None)
            for new, found in zip(wanted, made, strict=True)
            if found.created and not new.delay and new.waits_for is None
        ]
        self.publisher.publish_soon(due if are_first else self.with_inputs(due))

    def with_inputs(self, due: Collection[Due]) -> list[Due]:
        """These messages, each with its run's input where its flow fails open; see `message.with_inputs`."""
        return message.with_inputs(lambda: self.database, flows=self.flows, due=due)

    def handle(self, run_id: str, flow: DeclaredFlow[Any] | None = None, *, created: bool = False) -> Run:
        """A handle on a run. Raises: LedgerClosed."""
        self.require_open()
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

    def journal(self, run_id: str) -> list[EventView]:
        """The run's events, oldest first. Raises: RunNotFound."""
        found = self.database.ask(lambda conn: read.journal(conn, run_id))
        if not found:
            raise RunNotFound(run_id)
        return found

    def cancel(self, run_ids: Collection[str], *, by: str) -> dict[str, RunState]:
        """Cancel what can be; see `ledger.cancel`."""
        call = nonce()
        return self.database.run(
            lambda conn: cancel(conn, run_ids, by=by, call=call),
            read_back=lambda conn: canceled(conn, run_ids, call=call) or None,
        )

    def retry(self, run_id: str, *, by: str) -> None:
        """Start a failed run's failed phase again. Raises: StateConflict, RunNotFound."""
        self._again("retry", run_id, by)

    def resume(self, run_id: str, *, by: str) -> None:
        """Go on with a blocked run. Raises: StateConflict, RunNotFound."""
        self._again("resume", run_id, by)

    def signal(self, run_id: str, given: Signal) -> None:
        """Deliver a signal once, and ring if the run goes on by it. Raises: StateConflict, RunNotFound."""
        told = self.database.run(
            lambda conn: given.deliver(conn, run_id), read_back=lambda conn: given.delivered(conn, run_id)
        )
        if told.answer is Answer.NOT_LIVE:
            raise StateConflict(run_id, "signal", self.view(run_id).state)
        if told.due is not None:
            self.publisher.publish(self.with_inputs([told.due]))

    def find(self, namespace: str, hashes: Collection[str]) -> list[str]:
        """The ids of the runs that stand under any of these keys."""
        return self.database.ask(lambda conn: find_runs(conn, namespace, hashes))

    def rerun(self, run_id: str, flow: DeclaredFlow[Any] | None, *, by: str) -> Run:
        """Make a new run of a run's key. Raises: RunNotFound, InputError, DeclarationError."""
        view = self.view(run_id)
        found = flow or self.flows.get(view.flow)
        if found is None:
            raise DeclarationError(f"this application has no flow {view.flow}: rerun run {run_id} where it is declared")
        new = again(self, found, view, lambda key: self.database.ask(lambda conn: recorded_fingerprint(conn, *key)))
        made = self.enqueue([new], Way(partial(rerun, by=by), RERUN.read_back))
        return self.handle(made[0].run_id, found, created=True)

    def _again(self, verb: str, run_id: str, by: str) -> None:
        move, call = retry if verb == "retry" else resume, nonce()
        moved = self.database.run(
            lambda conn: move(conn, run_id, by=by, call=call),
            read_back=lambda conn: bool(entries_of(conn, [run_id], call=call)) or None,
        )
        view = self.view(run_id)
        if moved:
            self.publisher.publish([message.of_view(view=view, flow=self.flows.get(view.flow))])
            return
        wanted = RunState.FAILED if verb == "retry" else RunState.BLOCKED
        newer = f"its {'subject' if view.subject else 'key'} has a newer run"
        why = newer if view.state is wanted else f"only a {wanted} run can be"
        raise StateConflict(run_id, verb, view.state, why)
