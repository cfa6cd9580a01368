"""
Idempotency-Key: the same request is done once, and answered the same as often as it is sent.

The answer is kept in the transaction that does the work (`ledger.answers`), so a client that lost its connection, or
a server that died, leaves the whole or nothing. Follows draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from runclaim.api.problems import Problem
from runclaim.keys import fingerprint
from runclaim.ledger import answers
from runclaim.ledger.answers import Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import Request
    from sqlalchemy import Connection

    from runclaim.api.service import Service

_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE: Final = re.compile(r"[!#-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Done:
    """What a piece of work answers; `then` is done after its commit."""

    status: int
    body: str
    run_id: str
    headers: dict[str, str] = field(default_factory=dict)
    then: Callable[[], None] = lambda: None
    replayed: bool = False

    def response(self) -> Response:
        """The answer."""
        told = {"Idempotency-Replayed": "true"} if self.replayed else {}
        return Response(self.body, status_code=self.status, headers=self.headers | told, media_type="application/json")


def _nothing() -> None:
    pass


def done(
    status: int, body: dict[str, Any], run_id: str, headers: dict[str, str], *, then: Callable[[], None] = _nothing
) -> Done:
    """An answer of JSON, written now: it is the same text whenever it is given again."""
    return Done(status, json.dumps(body, separators=(",", ":")), run_id, headers, then)


#: The work in a transaction, and how an ambiguous commit of it is read back.
Work = Callable[["Connection"], Done]
ReadBack = Callable[["Connection"], "Done | None"]


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
    raise Problem("bad-request", "Idempotency-Key is one text of 1 to 255 printable ASCII characters")


def once(
    service: Service,
    request: Request,
    *,
    project: str,
    payload: Any,
    work: Work,
    read_back: ReadBack | None = None,
) -> Response:
    """
    Do the work in one transaction, or answer as it was answered under the same Idempotency-Key.

    Raises: Problem when another request with the key is being answered, or the key was used for another payload.
    """
    key = key_of(request)
    if key is None:
        answered = service.database.run(work, read_back=read_back)
    else:
        asked = [request.method, request.url.path, payload]
        place = fingerprint([project, request.method, request.url.path, key])
        mine: list[Done] = []

        def keyed(conn: Connection) -> Done:
            mine.append(_keyed(conn, place, fingerprint(asked), work))
            return mine[-1]

        def kept(conn: Connection) -> Done | None:
            found = _kept(conn, place, fingerprint(asked))
            # Of this very request: what it started is still to be rung for.
            return next((each for each in mine if found is not None and each.body == found.body), found)

        with _alone(service, place):
            answered = service.database.run(keyed, read_back=kept)
    answered.then()
    return answered.response()


def _keyed(conn: Connection, place: str, asked: str, work: Work) -> Done:
    if not answers.begin(conn, place):
        raise _in_flight()
    if found := _kept(conn, place, asked):
        return found
    made = work(conn)
    if not answers.keep(conn, place, Kept(asked, made.run_id, made.status, made.headers, made.body)):
        raise _in_flight()
    return made


def _kept(conn: Connection, place: str, asked: str) -> Done | None:
    found = answers.find(conn, place)
    if found is None:
        return None
    if found.fingerprint != asked:
        raise Problem(
            "idempotency-key-reused", "the same key came with another payload; use a new key for a new request"
        )
    return Done(found.status, found.body, found.run_id, found.headers, replayed=True)


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
    return Problem("request-in-flight", "try again in a moment: the answer will be the same")
