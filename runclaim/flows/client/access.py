"""
What flows and handles reach the ledger by: one database, one publisher, and what the application has declared.

Reached lazily: declaring flows connects to nothing. The schema is checked once per process, before the first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from runclaim import forks, migrations
from runclaim.database import Database
from runclaim.errors import LedgerClosed
from runclaim.flows.client.application_sessions import OwnSessions
from runclaim.flows.messages import message
from runclaim.listeners.listener import Listeners

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from runclaim.config import Config
    from runclaim.errors import LedgerUnavailable
    from runclaim.flows.actions.action import Action
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.messages.publisher import Publisher
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.enqueue import Enqueued
    from runclaim.ledger.new_run import NewRun
    from runclaim.sql.ledger_file import Opened

T = TypeVar("T")


class Change(Protocol[T]):
    """
    A change of runs or actions as a value, the same for every door: what it writes, reads back and publishes.

    One value is one change, however often its transaction is tried.
    """

    def work(self, conn: Connection) -> T:
        """Make the change and return what came of it. The caller owns the transaction. Raises: what refuses it."""
        ...

    def read_back(self, conn: Connection) -> T | None:
        """After an ambiguous commit: what `work` returned if it has committed, else `None`."""
        ...

    def publish(self, access: LedgerAccess, outcome: T) -> None:
        """Tell the broker what is due now. After the commit; never raises for a broker that does not answer."""
        ...


class Fallback(Protocol):
    """What takes new runs while the ledger is away."""

    def __call__(self, wanted: Sequence[NewRun], away: LedgerUnavailable) -> list[Enqueued]:
        """Take the runs without the ledger. Raises: `away`, for runs that wait for the ledger."""
        ...


class LedgerAccess:
    """
    The way to one ledger and to its broker. Safe across threads and forks.

    `database` is for a door that has connections of its own, and looks after the schema itself.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        publisher: Callable[[], Publisher],
        flows: Mapping[str, DeclaredFlow[Any]] | None = None,
        *,
        database: Database | None = None,
    ) -> None:
        self._config, self._publisher = config, publisher
        #: The application's flows by name; the application adds to them as it declares them.
        self.flows: Mapping[str, DeclaredFlow[Any]] = {} if flows is None else flows
        #: What this process has claimed by plain calls.
        self.plain_names: set[str] = set()
        self._database, self._checks_schema = database, database is None
        self._making = forks.Lock()
        #: In which process the schema was looked at, and in which file of SQLite.
        self._checked: tuple[int, Opened | None] | None = None
        self._is_closed = False
        #: Takes new runs while the ledger is away; set where flows may fail open.
        self.fallback: Fallback | None = None
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
        if self._checks_schema and (self._checked is None or self._checked != database.standing()):
            migrations.require_current(database, was_there=self._checked is not None)
            self._checked = database.standing()
        return database

    def _unchecked(self) -> Database:
        self.require_open()
        if self._database is None:
            with self._making:
                if self._database is None:
                    self._database = Database(self.config.database_url, patience=self.config.ledger_patience)
        return self._database

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, for what then does less."""
        return self._is_closed

    def require_open(self) -> None:
        """For what may answer without the database. Raises: LedgerClosed."""
        if self._is_closed:
            raise LedgerClosed

    def require_schema(self) -> None:
        """For work on another connection. Raises: LedgerClosed, SchemaBehind."""
        _ = self.database

    def ask(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question that only reads. Raises: LedgerUnavailable."""
        return self.database.ask(question)

    def do(self, change: Change[T]) -> T:
        """Make a change in a transaction of its own, then publish what is due by it. Raises: what refuses it."""
        outcome = self.database.run(change.work, read_back=change.read_back)
        change.publish(self, outcome)
        return outcome

    def with_inputs(self, due: Collection[Due]) -> list[Due]:
        """These messages, each with its run's input where its flow fails open; see `message.with_inputs`."""
        return message.with_inputs(lambda: self.database, flows=self.flows, due=due)

    def close(self) -> None:
        """Close the connections for good: every call after this raises LedgerClosed."""
        self._is_closed = True
        if self._database is not None:
            self._database.shut()
