"""
What every handler needs: the ledger with the API's own patience, the flows, the way to the broker if there is one.

Handlers are plain functions on a pool of threads. None holds a transaction open while it waits.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runclaim import logs
from runclaim.api.auth import KnownTokens
from runclaim.api.bodies import Buffers
from runclaim.api.page_tokens import place_of
from runclaim.api.problems import Problem
from runclaim.api.quota import Quota, Shares
from runclaim.api.room import Room
from runclaim.database import Database
from runclaim.flows.client.enqueue import Enqueue, Rerun
from runclaim.flows.client.run_source import RunSource
from runclaim.flows.declare.registry import all_registered, registered
from runclaim.ledger.doors.page_key import find_page_key, page_key
from runclaim.ledger.enqueue import Enqueued

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from runclaim.app import Runclaim
    from runclaim.config import Config
    from runclaim.flows.declare.description import FlowDescription
    from runclaim.flows.flow import Flow
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.new_run import NewRun

logger: Final = logs.logger("runclaim.api")

T = TypeVar("T")

#: A client is told to try again sooner than a worker gives up.
_PATIENCE: Final = timedelta(seconds=2)
_PAGE_KEY_SECONDS: Final = 60.0
#: How often a page token that does not fit makes this process look for a newer key.
_PAGE_KEY_PAUSE: Final = 1.0


class Service:
    """One for each API process. `runs` is the application, where the API was started with one."""

    def __init__(self, config: Config, runs: Runclaim | None = None) -> None:
        self.config, self.runs = config, runs
        self.database = Database(config.database_url, pool_size=10, patience=min(_PATIENCE, config.ledger_patience))
        self.quota = Quota(config)
        #: Idempotency keys that this process works on now.
        self.in_flight: set[str] = set()
        self.lock = threading.Lock()
        self.shares, self.buffers = Shares(), Buffers()
        self.room = Room(self.database, config)
        self.known_tokens = KnownTokens(self.database)
        self._page_key, self._page_key_read_at = b"", float("-inf")

    @property
    def page_key(self) -> bytes:
        """What page tokens are signed with; read again after a minute, so that a new one needs no restart."""
        if time.monotonic() - self._page_key_read_at >= _PAGE_KEY_SECONDS:
            self._page_key = self.ask(find_page_key) or self.database.run(page_key)
            self._page_key_read_at = time.monotonic()
        return self._page_key

    def place_of(self, question: Sequence[str], token: str) -> str:
        """The place that a page token names. Raises: Problem unless it was given for this very listing."""
        try:
            return place_of(self.page_key, question, token)
        except Problem:
            # Another process may have signed it with a newer key.
            if time.monotonic() - self._page_key_read_at < _PAGE_KEY_PAUSE:
                raise
            self._page_key_read_at = float("-inf")
            return place_of(self.page_key, question, token)

    def ask(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question that only reads. Raises: LedgerUnavailable."""
        return self.database.ask(question)

    def flow(self, name: str) -> RunSource:
        """A flow by its application where that is at hand, else as it was registered. Raises: Problem."""
        if self.runs is not None and (flow := self.runs.flows.get(name)) is not None and flow.phases:
            return RunSource.declared(flow, self.runs.config, self.runs.ledger.headers_of)
        if (description := self.ask(lambda conn: registered(conn, name))) is None:
            raise Problem(
                "unknown-flow",
                f"flow {name} is not registered: start a worker of its application, which registers it",
            )
        return RunSource.registered(description)

    def flows(self) -> list[FlowDescription]:
        """Every flow that is known here, by name."""
        found = self.ask(all_registered)
        if self.runs is not None:
            found |= {flow.name: flow.described(self.runs.config) for flow in self.runs.flows.values() if flow.phases}
        return [found[name] for name in sorted(found)]

    @property
    def can_ring(self) -> bool:
        """Whether there is a broker to tell of a run; else beat dispatches it."""
        return self.runs is not None

    def declared(self, name: str) -> Flow[Any] | None:
        """The declaration of a flow, where it is at hand."""
        return None if self.runs is None else self.runs.flows.get(name)

    def ring(self, due: Due) -> None:
        """Publish the message of a run that is due now. Never raises for a broker that does not answer."""
        if self.runs is not None and self.declared(due.flow) is not None:
            self.runs.ledger.publisher.publish([due])

    def ring_new(self, new: NewRun, *, is_first: bool) -> None:
        """Publish the message of a run that was made just now, if it is due; `is_first` says that its key had none."""
        if self.runs is not None and new.flow in self.runs.flows:
            change = Enqueue([new]) if is_first else Rerun([new])
            change.publish(self.runs.ledger, [Enqueued(new.run_id, created=True)])

    def ring_actions(self) -> None:
        """Say that an action is due now. Never raises for a broker that does not answer."""
        if self.runs is not None:
            self.runs.ledger.publisher.ring_actions(1)

    def close(self) -> None:
        """Close the connections."""
        self.database.close()
