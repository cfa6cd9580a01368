"""
A proxy before PostgreSQL that cuts a connection around one chosen COMMIT (unencrypted connections only).

Armed for a mode and a mark, it waits for the first COMMIT of a transaction in whose statements the mark stands:
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
        self._armed: tuple[str, bytes] | None = None
        self._deliver = threading.Event()
        self._lock = threading.Lock()
        self._start(self._accept)

    def arm(self, mode: str, mark: str) -> None:
        """Cut at the next COMMIT of a transaction that has `mark` in a statement."""
        self._deliver.clear()
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
        said = b""
        with contextlib.suppress(OSError):
            while sent := client.recv(1 << 16):
                said += sent
                if mode := self._cuts(said, sent):
                    if mode == "before":
                        break
                    eats.set()
                    if mode == "late":
                        reset(client)
                        self._deliver.wait(60)
                    server.sendall(sent)
                    return  # the server answers, `_to_client` swallows it and closes both
                if b"COMMIT" in sent or b"ROLLBACK" in sent:
                    said = b""
                server.sendall(sent)
        reset(client, server)

    def _to_client(self, client: socket.socket, server: socket.socket, eats: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while answer := server.recv(1 << 16):
                if eats.is_set():
                    break
                client.sendall(answer)
        reset(client, server)

    def _cuts(self, said: bytes, sent: bytes) -> str | None:
        """The mode, if this is the COMMIT that was armed."""
        with self._lock:
            if self._armed is None or b"COMMIT" not in sent or self._armed[1] not in said:
                return None
            mode, self._armed = self._armed[0], None
            self.fired += 1
            return mode

    @staticmethod
    def _start(target: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()


def reset(*sockets: socket.socket) -> None:
    """Close each at once, without a goodbye."""
    for each in sockets:
        with contextlib.suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            each.shutdown(socket.SHUT_RDWR)
        each.close()
