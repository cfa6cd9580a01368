"""
A PostgreSQL whose COMMITs can be cut: a proxy that understands just enough of the protocol to find them.

The client sees the same error whether its transaction was committed or not; only the server knows. A test orders a
cut, and the next COMMIT that comes by gets it. Everything else passes through unchanged.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Self

from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0


class When(Enum):
    """Where a COMMIT is when its connection breaks."""

    BEFORE = "before"  #: it never reaches the server, which rolls back
    AFTER = "after"  #: the server has done it; the answer never reaches the client
    LATE = "late"  #: it reaches the server long after the client has given up


class Cut:
    """One cut that was ordered. `landed` is set once the client has lost its connection by it."""

    def __init__(self, when: When) -> None:
        self.when = when
        self.landed = threading.Event()
        #: A late COMMIT goes on to the server when this is set.
        self.let_go = threading.Event()
        #: Set when the server has answered a COMMIT that the client never heard of.
        self.committed = threading.Event()


class CuttingProxy:
    """Stands in front of the server of `url`; its own `url` leads to the same database through it."""

    def __init__(self, url: str) -> None:
        upstream = make_url(url)
        assert upstream.host is not None
        self._upstream = (upstream.host, upstream.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        through = upstream.set(host="127.0.0.1", port=self._listener.getsockname()[1])
        # Encrypted or not is settled before the first message that we could read.
        plain = through.update_query_dict({"sslmode": "disable", "gssencmode": "disable"})
        self.url = plain.render_as_string(hide_password=False)
        self._orders: deque[Cut] = deque()
        self._links: list[_Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def order(self, when: When) -> Cut:
        """Cut the next COMMIT that no earlier order is waiting for."""
        cut = Cut(when)
        self._orders.append(cut)
        return cut

    def withdraw(self) -> None:
        """Forget the orders that no COMMIT has come by for."""
        self._orders.clear()

    def next_order(self) -> Cut | None:
        with suppress(IndexError):
            return self._orders.popleft()
        return None

    def close(self) -> None:
        self._listener.close()
        for link in self._links:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream)
            except OSError:
                client.close()
                continue
            self._links.append(_Link(self, client, server))


class _Link:
    """One client's connection, copied both ways by two threads."""

    def __init__(self, proxy: CuttingProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._cut: Cut | None = None
        for end in (client, server):
            # Several small messages make one request: none of them may wait for the one before to be confirmed.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._to_server, daemon=True).start()
        threading.Thread(target=self._to_client, daemon=True).start()

    def close(self) -> None:
        self._break(self._client)
        self._break(self._server)

    def _to_server(self) -> None:
        with suppress(OSError):
            for message in _messages(self._client):
                if _is_commit(message) and (cut := self._proxy.next_order()) is not None:
                    self._cut = cut
                    self._commit(cut, message)
                    return
                self._server.sendall(message)
        self._break(self._server)

    def _commit(self, cut: Cut, message: bytes) -> None:
        if cut.when is When.BEFORE:
            self._break(self._server)
        if cut.when is not When.AFTER:
            self._lose(cut)
        if cut.when is When.LATE:
            cut.let_go.wait(PATIENCE)
        if cut.when is not When.BEFORE:
            self._server.sendall(message)

    def _to_client(self) -> None:
        with suppress(OSError):
            while block := self._server.recv(65536):
                if self._cut is not None:
                    # The only thing it can be is the answer to the COMMIT.
                    self._cut.committed.set()
                    self._lose(self._cut)
                    break
                self._client.sendall(block)
        self.close()

    def _lose(self, cut: Cut) -> None:
        self._break(self._client)
        cut.landed.set()

    @staticmethod
    def _break(end: socket.socket) -> None:
        """Reset, as a machine that is gone does; a polite end would tell that nothing more comes."""
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RDWR)
            end.close()


def _messages(client: socket.socket) -> Iterator[bytes]:
    """What a client sends, message by message. The first one has no type, only a length."""
    pending, head = b"", 0
    while block := client.recv(65536):
        pending += block
        while len(pending) >= head + 4:
            size = head + int.from_bytes(pending[head : head + 4], "big")
            if len(pending) < size:
                break
            yield pending[:size]
            pending, head = pending[size:], 1


def _is_commit(message: bytes) -> bool:
    """A simple query, or the parsing of a prepared one (whose name stands before it)."""
    kind, body = message[:1], message[5:]
    statement = body.partition(b"\0")[2] if kind == b"P" else body if kind == b"Q" else b""
    return statement.upper().startswith(b"COMMIT")
