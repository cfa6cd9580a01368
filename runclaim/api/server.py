"""
What every handler needs: the ledger with the API's own patience, the flows, the way to the broker if there is one.

Handlers are plain functions on a pool of threads. None holds a transaction open while it waits.
"""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from runclaim import logs
from runclaim.api.bodies import Buffers
from runclaim.api.known_tokens import KnownTokens
from runclaim.api.page_tokens import place_of
from runclaim.api.problems import Problem
from runclaim.api.quota import Quota, Shares
from runclaim.api.room import Room
from runclaim.database import Database
from runclaim.flows.client.access import LedgerAccess
from runclaim.flows.messages.no_broker import NoBroker
from runclaim.ledger.doors.page_key import find_page_key, page_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import Connection

    from runclaim.app import Runclaim
    from runclaim.config import Config
    from runclaim.ledger.dispatch import Due

logger: Final = logs.logger("runclaim.api")

T = TypeVar("T")

#: A client is told to try again sooner than a worker gives up.
_PATIENCE: Final = timedelta(seconds=2)
_PAGE_KEY_SECONDS: Final = 60.0
#: How often a page token that does not fit makes this process look for a newer key.
_PAGE_KEY_PAUSE: Final = 1.0


class Server:
    """One for each API process. `runs` is the application, where the API was started with one."""

    def __init__(self, config: Config, runs: Runclaim | None = None) -> None:
        self.config = config
        self.database = Database(config.database_url, pool_size=10, patience=min(_PATIENCE, config.ledger_patience))
        self.attach(runs)
        self.quota = Quota(config)
        #: Idempotency keys that this process works on now.
        self.in_flight: set[str] = set()
        self.lock = threading.Lock()
        self.shares, self.buffers = Shares(), Buffers()
        self.room = Room(self.database, config)
        self.known_tokens = KnownTokens(self.database)
        self._page_key, self._page_key_read_at = b"", float("-inf")

    def attach(self, runs: Runclaim | None) -> None:
        """Go by the application's flows and publisher, or by what workers have registered and without a broker."""
        self.runs = runs
        publisher = NoBroker() if runs is None else _OwnFlows(runs)
        flows = {} if runs is None else runs.flows
        self.access = LedgerAccess(lambda: self.config, lambda: publisher, flows, database=self.database)
        if runs is not None:
            self.access.headers_of = runs.ledger.headers_of

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

    @property
    def can_ring(self) -> bool:
        """Whether there is a broker to tell of a run; else beat dispatches it."""
        return self.runs is not None

    def close(self) -> None:
        """Close the connections."""
        self.database.close()


class _OwnFlows:
    """The application's publisher, for the flows that it declares: it does not know the tasks of others."""

    def __init__(self, runs: Runclaim) -> None:
        self._runs = runs

    def publish(self, due: Collection[Due]) -> int:
        """As the application's."""
        return self._runs.ledger.publisher.publish(self._own(due))

    def publish_soon(self, due: Collection[Due]) -> None:
        """As the application's."""
        self._runs.ledger.publisher.publish_soon(self._own(due))

    def ring_actions(self, many: int) -> None:
        """As the application's."""
        self._runs.ledger.publisher.ring_actions(many)

    def _own(self, due: Collection[Due]) -> list[Due]:
        return [each for each in due if each.flow in self._runs.flows]
