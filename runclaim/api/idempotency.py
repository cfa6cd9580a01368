"""
Idempotency-Key: the same request is done once, however often it is sent.

What is answered is kept in the transaction that does the work (`ledger.answers`), so a client that lost its connection,
or a server that died, leaves the whole or nothing. Kept are the status and which run it is about; the body shows the
run as it is by then, to whoever may read it. Follows draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import JSONResponse, Response

from runclaim.api.problems import Problem
from runclaim.keys import fingerprint
from runclaim.ledger.doors import idempotency_keys as answers
from runclaim.ledger.doors.idempotency_keys import KeptAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import Request
    from sqlalchemy import Connection

    from runclaim.api.auth import Caller
    from runclaim.api.service import Service

_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE: Final = re.compile(r"[!#-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Done:
    """What a piece of work answers, but for its body; `then` is done after its commit."""

    status: int
    run_id: str
    headers: dict[str, str] = field(default_factory=dict)
    then: Callable[[], None] = lambda: None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Something that was done, with the body and the headers that show how things stand."""

    done: Done
    body: Any
    headers: dict[str, str]

    def response(self) -> Response:
        """The answer."""
        told = {"Idempotency-Replayed": "true"} if self.done.replayed else {}
        headers = self.done.headers | self.headers | told
        return JSONResponse(self.body, status_code=self.done.status, headers=headers)


#: The work in a transaction, and how an ambiguous commit of it is read back.
Work = Callable[["Connection"], Done]
ReadBack = Callable[["Connection"], "Done | None"]
#: The body of an answer about the run of an id, and the headers that change with it.
Show = Callable[["Connection", str], tuple[Any, dict[str, str]]]


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


def once(
    caller: Caller,
    request: Request,
    *,
    project: str,
    payload: Any,
    work: Work,
    show: Show,
    read_back: ReadBack | None = None,
) -> Response:
    """
    Do the work in one transaction, or answer as it was answered under the same Idempotency-Key.

    The body is made by `show` both times. Raises: Problem when another request with the key is being answered, or the
    key was used for another payload.
    """
    service, key = caller.service, key_of(request)
    if key is None:
        back = None if read_back is None else lambda conn: _answer(conn, read_back(conn), show)
        answered = service.database.run(lambda conn: _answer_of(conn, work(conn), show), read_back=back)
    else:
        asked = fingerprint([request.method, request.url.path, payload])
        place = fingerprint([project, request.method, request.url.path, key])
        mine: list[Done] = []

        def keyed(conn: Connection) -> Done:
            mine.append(_keyed(conn, place, asked, project, work))
            return mine[-1]

        def kept(conn: Connection) -> Done | None:
            found = _kept(conn, place, asked)
            # Of this very request: what it started is still to be rung for.
            ours = (each for each in mine if found and not each.replayed and each.run_id == found.run_id)
            return next(ours, found)

        service.room.require("answers", project)
        with _alone(service, place):
            answered = service.database.run(
                lambda conn: _answer_of(conn, keyed(conn), show), read_back=lambda conn: _answer(conn, kept(conn), show)
            )
    answered.done.then()
    return answered.response()


def _answer_of(conn: Connection, done: Done, show: Show) -> Answer:
    return Answer(done, *show(conn, done.run_id))


def _answer(conn: Connection, done: Done | None, show: Show) -> Answer | None:
    return None if done is None else _answer_of(conn, done, show)


def _keyed(conn: Connection, place: str, asked: str, project: str, work: Work) -> Done:
    if not answers.begin(conn, place):
        raise _in_flight()
    if found := _kept(conn, place, asked):
        return found
    made = work(conn)
    if not answers.keep(conn, place, KeptAnswer(asked, made.run_id, made.status, made.headers, project)):
        raise _in_flight()
    return made


def _kept(conn: Connection, place: str, asked: str) -> Done | None:
    found = answers.find(conn, place)
    if found is None:
        return None
    if found.fingerprint != asked:
        raise Problem(
            "idempotency-key-reused",
            "this key was already sent with a different payload; use a new key for a new request",
        )
    return Done(found.status, found.run_id, found.headers, replayed=True)


@contextmanager
def _alone(service: Service, place: str) -> Iterator[None]:
    """One request of a key at a time in this process; the database sees to the others."""
    with service.lock:
        if place in service.in_flight:
            raise _in_flight()
        service.in_flight.add(place)
    try:
        yield
    finally:
        with service.lock:
            service.in_flight.discard(place)


def _in_flight() -> Problem:
    return Problem("request-in-flight", "try again in a moment; you will get the answer to that request")
