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
from runclaim.service.once import Answered, KeyedRequest, Once

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
class _Response(Generic[T]):
    """An answer with the body and the headers that show how things stand."""

    answered: Answered[T]
    body: Any
    headers: dict[str, str]

    def response(self) -> Response:
        """As it is sent."""
        answer = self.answered.answer
        replayed = {"Idempotency-Replayed": "true"} if self.answered.is_replayed else {}
        return JSONResponse(self.body, status_code=answer.status, headers=answer.headers | self.headers | replayed)


@dataclass(frozen=True, slots=True)
class _WithBody(Generic[T]):
    """A change whose answer is shown in the transaction that makes it."""

    once: Once[T]
    render: Render

    def work(self, conn: Connection) -> _Response[T]:
        return self._with_body(conn, self.once.work(conn))

    def read_back(self, conn: Connection) -> _Response[T] | None:
        answered = self.once.read_back(conn)
        return None if answered is None else self._with_body(conn, answered)

    def _with_body(self, conn: Connection, answered: Answered[T]) -> _Response[T]:
        return _Response(answered, *self.render(conn, answered.answer.run_id))


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
    server, access, keyed = caller.server, caller.server.access, _keyed_request(request, project, payload)
    once = Once(change, answer, keyed)
    change_with_body = _WithBody(once, render)
    if keyed is None:
        response = access.database.run(change_with_body.work, read_back=change_with_body.read_back)
    else:
        server.room.require("answers", project)
        with _alone(server, keyed.place):
            response = access.database.run(change_with_body.work, read_back=change_with_body.read_back)
    once.publish(access, response.answered)
    return response.response()


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
