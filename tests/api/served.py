"""The API over real HTTP: a server in a thread of the test's process, and a client that knows nothing of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin

import uvicorn

from runclaim.api import create_app
from runclaim.api.__main__ import settings
from runclaim.ledger.doors import tokens
from runclaim.ledger.doors.tokens import Scope
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runclaim.app import Runclaim
    from runclaim.config import Config
    from runclaim.database import Database


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert "application/problem+json" == self.headers["content-type"], self
        told = self.json
        assert (self.status, True) == (told["status"], "type" in told and "title" in told), told
        return told["code"]

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:500]!r}"


class Client:
    """Requests with one token, or with none."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port, self.token = port, token

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, *self.told(body, headers))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def told(self, body: Any, headers: Mapping[str, str]) -> tuple[bytes | None, dict[str, str]]:
        """The body and the headers of a request, names with underscores for dashes."""
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            said = {"Authorization": f"Bearer {self.token}"} | said
        if body is None or isinstance(body, bytes):
            return body, said
        return json.dumps(body).encode(), {"Content-Type": "application/json"} | said

    def at(self, path: str, reference: str) -> Answer:
        """What lies where an answer to `path` has pointed, which may be relative to it."""
        return self.get(urljoin(path, reference))

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    @contextlib.contextmanager
    def stream(self, path: str, **headers: str) -> Iterator[Iterator[dict[str, str]]]:
        """The server-sent events of a path as they come: dicts of their fields."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path, *self.told(None, headers))
            answer = connection.getresponse()
            assert 200 == answer.status, answer.read()
            yield events(answer)


def events(lines: Any) -> Iterator[dict[str, str]]:
    found: dict[str, str] = {}
    for raw in lines:
        name, _, value = raw.decode().rstrip("\n").partition(": ")
        if not name and found:
            if "event" in found:
                yield found
            found = {}
        elif name:
            found[name] = value


class Served:
    """An API that serves; ended with its block."""

    def __init__(self, config: Config, application: Runclaim | None = None, **how: Any) -> None:
        self.app = create_app(config, application)
        self.server = self.app.state.server
        self._socket = socket.create_server(("127.0.0.1", 0))
        # asyncio sets it only where a socket says that it is TCP; else an answer waits 40 ms for the client's ACK.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self._socket.getsockname()[1]
        config = settings(self.app, log_level="critical", **how)
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._server.started, "the start of the server")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def client(self, token: str | None = None) -> Client:
        return Client(self.port, token)


def token(
    database: Database, *scopes: str, projects: tuple[str, ...] = ("default",), lasts: Any = None, name: str = "test"
) -> str:
    """A token in the ledger."""
    wanted = [Scope(scope) for scope in scopes]
    return database.run(lambda conn: tokens.create(conn, name=name, scopes=wanted, projects=projects, lasts=lasts))
