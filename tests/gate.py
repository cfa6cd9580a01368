"""A gate before a PostgreSQL: shut, it breaks every connection and takes no new one; open, bytes pass unchanged."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

from sqlalchemy.engine import make_url


class Gate:
    """Stands before the server of `url`; its own `url` leads to the same database through it."""

    def __init__(self, url: str) -> None:
        upstream = make_url(url)
        assert upstream.host is not None
        self._upstream = (upstream.host, upstream.port or 5432)
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        through = upstream.set(host="127.0.0.1", port=self._port)
        self.url = through.render_as_string(hide_password=False)
        self._serve()

    def shut(self) -> None:
        """Nobody gets through, also those who were."""
        listener, self._listener = self._listener, None
        for end in [listener, *self._ends]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends = []

    def open(self) -> None:
        """Let them through again."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._upstream)
                self._ends += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._listener is not None:
            self.shut()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
