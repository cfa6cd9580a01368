"""
A proxy before PostgreSQL that cuts a connection around one chosen COMMIT (unencrypted connections only).

Armed for a mode and a mark, it waits for the first COMMIT of a transaction in whose statements the mark stands, or for
a statement with the mark that is a transaction by itself:
`before` swallows that COMMIT, `after` lets the server do it and swallows the answer, `late` closes the client's side at
once and delivers the COMMIT when the test says so. The client sees the same in all three.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from collections.abc import Callable

_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a reset, as when a machine in between goes away


class Cutter:
    """`url` is the server's through this proxy. One cut for each `arm`; `fired` counts them."""

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._server = (target.host, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = target.set(port=self._listener.getsockname()[1]).render_as_string(hide_password=False)
        self.fired = 0
        #: Set when the same was said again, and committed itself, after the cut.
        self.repeated = threading.Event()
        self._mark = b""
        self._armed: tuple[str, bytes] | None = None
        self._deliver = threading.Event()
        self._lock = threading.Lock()
        self._start(self._accept)

    def arm(self, mode: str, mark: str) -> None:
        """Cut at the next COMMIT of a transaction that has `mark` in a statement."""
        self._deliver.clear()
        self.repeated.clear()
        self._mark = mark.encode()
        self._armed = (mode, mark.encode())

    def deliver(self) -> None:
        """Let the server have the COMMIT that was held back as `late`."""
        self._deliver.set()

    def close(self) -> None:
        """Accept nobody any more."""
        self._deliver.set()
        self._listener.close()

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
                server = socket.create_connection(self._server)
            except OSError:
                reset(client)
                continue
            eats = threading.Event()
            self._start(self._to_server, client, server, eats)
            self._start(self._to_client, client, server, eats)

    def _to_server(self, client: socket.socket, server: socket.socket, eats: threading.Event) -> None:
        talk = Talk()
        with contextlib.suppress(OSError):
            while sent := client.recv(1 << 16):
                talk.hear(sent)
                if mode := self._cuts(talk):
                    if mode == "before":
                        break
                    eats.set()
                    if mode == "late":
                        reset(client)
                        self._deliver.wait(60)
                    server.sendall(sent)
                    return  # the server answers, `_to_client` swallows it and closes both
                server.sendall(sent)
        reset(client, server)

    def _to_client(self, client: socket.socket, server: socket.socket, eats: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while answer := server.recv(1 << 16):
                if eats.is_set():
                    break
                client.sendall(answer)
        reset(client, server)

    def _cuts(self, talk: Talk) -> str | None:
        """The mode, if this is the COMMIT that was armed."""
        with self._lock:
            if self.fired and talk.commits and self._mark in talk.statements:
                self.repeated.set()
            if self._armed is None or not talk.commits or self._armed[1] not in talk.statements:
                return None
            mode, self._armed = self._armed[0], None
            self.fired += 1
            return mode

    @staticmethod
    def _start(target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()


class Talk:
    """
    What one client has said: the statements of its current transaction, also those that it had prepared before.

    https://www.postgresql.org/docs/current/protocol-message-formats.html: Parse, Bind and Query.
    """

    def __init__(self) -> None:
        self.statements = b""
        self.commits = self._in_transaction = False
        self._prepared: dict[bytes, bytes] = {}
        self._rest = b""
        self._opened = False

    def hear(self, sent: bytes) -> None:
        """Take in some more bytes; `commits` tells whether a COMMIT was among them."""
        if self.commits:
            self.statements, self.commits = b"", False
        self._rest += sent
        while (size := self._size()) and len(self._rest) >= size:
            message, self._rest = self._rest[:size], self._rest[size:]
            if self._opened:
                self._message(message[:1], message[5:])
            # Before the StartupMessage of protocol 3, clients ask whether they may encrypt.
            self._opened = self._opened or message[4:6] == b"\0\3"

    def _size(self) -> int:
        """The length of the first message as far as it is known, else 0; the very first has no letter before it."""
        at = 1 if self._opened else 0
        return at + int.from_bytes(self._rest[at : at + 4]) if len(self._rest) >= at + 4 else 0

    def _message(self, letter: bytes, body: bytes) -> None:
        said = b""
        if letter == b"Q":
            said = body.rstrip(b"\0")
        elif letter == b"P":
            name, query, *_ = body.split(b"\0", 2)
            self._prepared[name] = query
        elif letter == b"B":
            _portal, name, *_ = body.split(b"\0", 2)
            said = self._prepared.get(name, b"")
        match said.upper():
            case begin if begin.startswith(b"BEGIN"):
                self._in_transaction = True
            case b"COMMIT":
                self.commits, self._in_transaction = True, False
            case b"ROLLBACK":
                self.statements, self._in_transaction = b"", False
            case _ if said:
                # Outside a transaction a statement commits itself.
                self.statements = self.statements + said if self._in_transaction else said
                self.commits = self.commits or not self._in_transaction


def reset(*sockets: socket.socket) -> None:
    """Close each at once, without a goodbye."""
    for each in sockets:
        with contextlib.suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            each.shutdown(socket.SHUT_RDWR)
        each.close()
