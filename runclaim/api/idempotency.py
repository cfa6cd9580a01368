"""
Idempotency-Key: the same request is done once, however often it is sent.

The answer is kept in the transaction that makes the change (`service.once`), so a client that lost its connection, or a
server that died, leaves the whole or nothing. Kept are the status and which run it is about; the body shows the run as
it is by then, if the caller may read it. Follows draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from starlette.responses import JSONResponse, Response

from runclaim.api.problems import Problem
from runclaim.keys import fingerprint
from runclaim.service.errors import RequestInFlight
from runclaim.service.once import KeyedRequest, Once

if TYPE_CHECKING:
    from fastapi import Request
    from sqlalchemy import Connection

    from runclaim.api.auth import Caller
    from runclaim.api.server import Server
    from runclaim.flows.client.access import Change
    from runclaim.service.once import Answer

T = TypeVar("T")

_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE: Final = re.compile(r"[!#-~]{1,255}")

#: The body of an answer about the run of an id, and the headers that change with it.
Render = Callable[["Connection", str], tuple[Any, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class _Rendered(Generic[T]):
    """What came of a change, and its answer with the body and the headers that show how things stand."""

    outcome: T
    answer: Answer
    body: Any
    headers: dict[str, str]

    def response(self) -> Response:
        """As it is sent."""
        return JSONResponse(self.body, status_code=self.answer.status, headers=self.answer.headers | self.headers)


@dataclass(frozen=True, slots=True)
class _Rendering(Generic[T]):
    """A change whose answer is rendered in the transaction that makes it."""

    change: Change[T]
    answer: Callable[[T], Answer]
    render: Render

    def work(self, conn: Connection) -> _Rendered[T]:
        return self._rendered(conn, self.change.work(conn))

    def read_back(self, conn: Connection) -> _Rendered[T] | None:
        outcome = self.change.read_back(conn)
        return None if outcome is None else self._rendered(conn, outcome)

    def _rendered(self, conn: Connection, outcome: T) -> _Rendered[T]:
        answer = self.answer(outcome)
        return _Rendered(outcome, answer, *self.render(conn, answer.run_id))


def respond(
    caller: Caller,
    request: Request,
    change: Change[T],
    *,
    project: str,
    payload: Any,
    answer: Callable[[T], Answer],
    render: Render,
) -> Response:
    """
    Make the change and answer it, or answer as it was answered under the same Idempotency-Key.

    The body is made by `render` both times. Raises: Problem when another request with the key is being answered, or the
    key was used for another payload; what refuses the change.
    """
    server, keyed = caller.server, _keyed_request(request, project, payload)
    if keyed is None:
        rendered = _committed(server, _Rendering(change, answer, render))
        change.publish(server.access, rendered.outcome)
        return rendered.response()
    server.room.require("answers", project)
    once = Once(change, answer, keyed)
    with _alone(server, keyed.place):
        answered = _committed(server, _Rendering(once, lambda kept: kept.answer, render))
    once.publish(server.access, answered.outcome)
    response = answered.response()
    if answered.outcome.is_replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _committed(server: Server, rendering: _Rendering[T]) -> _Rendered[T]:
    return server.access.database.run(rendering.work, read_back=rendering.read_back)


def _keyed_request(request: Request, project: str, payload: Any) -> KeyedRequest | None:
    key = key_of(request)
    if key is None:
        return None
    place = fingerprint([project, request.method, request.url.path, key])
    return KeyedRequest(place, fingerprint([request.method, request.url.path, payload]), project)


def key_of(request: Request) -> str | None:
    """The request's Idempotency-Key, quoted or bare; `None` without one. Raises: Problem."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) == 1:
        text = given[0].strip()
        if quoted := _QUOTED.fullmatch(text):
            return re.sub(r"\\(.)", r"\1", quoted[1])
        if _BARE.fullmatch(text):
            return text
    raise Problem("bad-request", "send one Idempotency-Key of 1 to 255 printable ASCII characters")


@contextmanager
def _alone(server: Server, place: str) -> Iterator[None]:
    """One request of a key at a time in this process; the database sees to the others."""
    with server.lock:
        if place in server.in_flight:
            raise RequestInFlight
        server.in_flight.add(place)
    try:
        yield
    finally:
        with server.lock:
            server.in_flight.discard(place)
