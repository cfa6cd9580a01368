"""
Connections: what one may cost before it has sent a request.

A client that does not send a complete head within ten seconds is disconnected, even after an answer. When there are too
many connections, the one that has kept the server waiting longest is dropped, so silent clients shut no one out. An
address has a share of the connections, and a body has a limit to its chunks.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from runclaim.api.origins import origin

if TYPE_CHECKING:
    from collections.abc import Collection

_TOO_MANY_CHUNKS: Final = "too many chunks"


class _Chunked(h11.Connection):
    """Counts the chunks of a body: each costs the event loop as much as a small request."""

    most_chunks: int = 8192
    chunks = 0

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.chunks = 0
        elif isinstance(event, h11.Data) and event.chunk_start:
            self.chunks += 1
            if self.chunks > self.most_chunks:
                raise h11.RemoteProtocolError(_TOO_MANY_CHUNKS)
        return event


class BoundedConnection(H11Protocol):
    """A connection of uvicorn's, within bounds."""

    #: Seconds for a whole head, from the connection or from the last answer.
    head_seconds: ClassVar[float] = 10.0
    most: ClassVar[int] = 1000
    most_of_origin: ClassVar[int] = 250
    #: Origins of proxies, which speak for many.
    trusted: ClassVar[Collection[str]] = ()

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        size = self.config.h11_max_incomplete_event_size
        self.conn = _Chunked(h11.SERVER, h11._connection.DEFAULT_MAX_INCOMPLETE_EVENT_SIZE if size is None else size)  # noqa: SLF001
        self.origin = ""
        self.silent_since = time.monotonic()
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head, unless there are too many connections already."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.origin = origin(self.client[0] if self.client else None)
        self._await_head()
        others = [each for each in self.connections if isinstance(each, BoundedConnection) and each is not self]
        ours = sum(each.origin == self.origin for each in others)
        if self.origin not in self.trusted and ours >= self.most_of_origin:
            self.transport.abort()
        elif len(others) >= self.most:
            silent = [each for each in others if each.is_silent and not each.transport.is_closing()]
            min(silent, key=lambda each: each.silent_since, default=self).transport.abort()

    @property
    def is_silent(self) -> bool:
        """Whether the server waits for the client: for a head, or for the rest of a body."""
        return self.conn.their_state in {h11.IDLE, h11.SEND_BODY}

    def data_received(self, data: bytes) -> None:
        """A head that is whole stops the clock."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_clock()

    def on_response_complete(self) -> None:
        """The next head is waited for as long as the first."""
        self._await_head()
        super().on_response_complete()
        if not self.cycle.response_complete:
            self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop_clock()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop_clock()
        self.silent_since = time.monotonic()
        self._deadline = self.loop.call_later(self.head_seconds, self._let_go)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _let_go(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()


def trusting(proxies: Collection[str]) -> type[BoundedConnection]:
    """The kind of connection for a server behind proxies at these addresses, which have no share of their own."""
    return type("TrustingConnection", (BoundedConnection,), {"trusted": frozenset(origin(each) for each in proxies)})
