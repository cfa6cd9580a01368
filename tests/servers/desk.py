"""
Where tests ask for the servers that a whole run shares.

Each is started once, by the first who needs it, in the process that outlives the others: pytest-xdist's controller.
Its workers ask over a socket; without xdist the desk is asked directly.
"""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, NoReturn

from runclaim.servers import Server, ServerMissing, valkey
from tests.servers.postgres import postgres
from tests.servers.rabbitmq import RabbitMQ, rabbitmq

if TYPE_CHECKING:
    from collections.abc import Callable

MAKE: dict[str, Callable[[], Server]] = {"postgres": postgres, "redis": valkey, "rabbitmq": rabbitmq}
VARIABLE = {
    "postgres": "RUNCLAIM_TEST_POSTGRES_URL",
    "redis": "RUNCLAIM_TEST_REDIS_URL",
    "rabbitmq": "RUNCLAIM_TEST_AMQP_URL",
}


@dataclass(frozen=True)
class External:
    """A server that somebody else runs, given by a URL in the environment: to be used, not to be harmed."""

    kind: str
    url: str

    @property
    def how(self) -> str:
        return f"given by {VARIABLE[self.kind]}"

    def __getattr__(self, name: str) -> NoReturn:
        raise ServerMissing(
            f"this test wants to {name} its {self.kind} server, and that is not ours. Fix: unset {VARIABLE[self.kind]}"
        )


def external(kind: str) -> External | None:
    """The server that the environment names, if it names one."""
    url = os.environ.get(VARIABLE[kind])
    return External(kind, url) if url else None


class Desk:
    """Owns the shared servers and remembers, for the report, every server that was started."""

    def __init__(self) -> None:
        self._shared: dict[str, Future[Server | External]] = {}
        self._starters = ThreadPoolExecutor(len(MAKE))
        self._lock = Lock()
        self._listener: Listener | None = None
        self._key = os.urandom(32)
        self.started: dict[str, list[float]] = {}  # what was started: the seconds each took
        self.missing: dict[str, str] = {}  # kind: the message that names the fix
        self.left_out = 0

    def ask(self, question: str, *arguments: Any) -> Any:
        """What the method `question` returns; `Remote` asks the same over a socket."""
        return getattr(self, question)(*arguments)

    def want(self, kind: str) -> None:
        """Start the shared server of this kind in the background, unless somebody has asked before."""
        with self._lock:
            if kind not in self._shared:
                self._shared[kind] = self._starters.submit(self._start, kind)

    def url(self, kind: str) -> str:
        """The shared server's URL, as soon as it answers. Raises: `ServerMissing`."""
        return self._server(kind).url

    def open_vhost(self) -> str:
        """The URL of a new virtual host of the shared RabbitMQ (the only one there is, if that is not ours)."""
        server = self._server("rabbitmq")
        return server.add_vhost() if isinstance(server, RabbitMQ) else server.url

    def close_vhost(self, url: str) -> None:
        """Delete what `open_vhost` returned."""
        server = self._server("rabbitmq")
        if isinstance(server, RabbitMQ):
            server.delete_vhost(url)

    def note(self, what: str, seconds: float) -> None:
        """Remember a server for the report."""
        with self._lock:
            self.started.setdefault(what, []).append(seconds)

    def note_missing(self, kind: str, message: str) -> None:
        """Remember for the report that tests failed for want of a server."""
        self.missing[kind] = message

    def note_left_out(self, tests: int) -> None:
        """Every worker of xdist collects, and leaves out, the same tests."""
        self.left_out = max(self.left_out, tests)

    def close(self) -> None:
        """End every shared server."""
        self._starters.shutdown()
        for future in self._shared.values():
            if not future.exception() and isinstance(server := future.result(), Server):
                server.remove()

    def _server(self, kind: str) -> Server | External:
        self.want(kind)
        return self._shared[kind].result()

    def _start(self, kind: str) -> Server | External:
        began = time.monotonic()
        server = external(kind) or started(MAKE[kind])
        self.note(f"{kind}: {server.how}", time.monotonic() - began)
        return server

    def serve(self) -> tuple[str, bytes]:
        """Answer other processes from now on; returns the address and the key that `Remote` wants."""
        if self._listener is None:
            self._listener = Listener(family="AF_UNIX", authkey=self._key)
            Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return str(self._listener.address), self._key

    def _accept(self, listener: Listener) -> None:
        while True:
            with contextlib.suppress(AuthenticationError, EOFError, OSError):  # who asked is gone
                Thread(target=self._answer, args=(listener.accept(),), daemon=True).start()

    def _answer(self, connection: Connection[Any, Any]) -> None:
        with connection, contextlib.suppress(EOFError, OSError):  # who asked is gone
            question, arguments = connection.recv()
            try:
                answer, error = self.ask(question, *arguments), None
            except Exception as raised:  # noqa: BLE001 - raised again where it was asked
                answer, error = None, raised
            connection.send((answer, error))


def started(make: Callable[[], Server]) -> Server:
    """A server that answers; a second one if the first found its port taken between the choice and the start."""
    try:
        return make().start()
    except RuntimeError:
        return make().start()


class Remote:
    """The desk of another process."""

    def __init__(self, address: str, key: bytes) -> None:
        self._address, self._key = address, key

    def ask(self, question: str, *arguments: Any) -> Any:
        with Client(self._address, authkey=self._key) as connection:
            connection.send((question, arguments))
            answer, error = connection.recv()
        if error:
            raise error
        return answer
