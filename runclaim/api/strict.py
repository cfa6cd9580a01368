"""
Bodies: taken up to a size and within a time before anything reads them, and read as strict JSON.

A field that is given twice, NaN, an infinite number and nesting deeper than 32 are refused: two programs that read
such a text would not read the same.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

import anyio
from fastapi import Request

from runclaim.api.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: An input of 256 kB, and what stands around it.
MAX_BODY_BYTES: Final = 320 * 1024
#: Webhooks have a cap of their own below this, see `Runclaim.webhook`.
MAX_WEBHOOK_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32
_BODY_SECONDS: Final = 20.0
#: Of what is thrown away before a refusal is told.
_DRAINED_BYTES: Final = 4 * MAX_WEBHOOK_BYTES
_DRAIN_SECONDS: Final = 1.0
_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class StrictRequest(Request):
    """A request whose JSON is strict."""

    async def json(self) -> Any:
        """The body. Raises: Problem."""
        if not hasattr(self, "_strict"):
            self._strict = parse(await self.body())
        return self._strict


def parse(body: bytes) -> Any:
    """The JSON of a body. Raises: Problem that says what is wrong with it."""
    try:
        found = json.loads(body, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except _Refused as refused:
        raise Problem("bad-request", f"the body {refused}") from refused
    except (ValueError, RecursionError) as error:
        raise Problem("bad-request", "the body is no JSON") from error
    if _depth(found) > MAX_DEPTH:
        raise Problem("bad-request", f"the body is nested deeper than {MAX_DEPTH}")
    return found


class _Refused(Exception):
    """What is wrong with a body."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("gives a field twice in one object")
    return found


def _no_constant(constant: str) -> Any:
    raise _Refused(f"contains {constant}, which is no JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise _Refused("contains a number that is too large")
    return number


def _depth(value: Any) -> int:
    """How many objects and lists stand inside each other, up to one more than is allowed."""
    level, depth = [value], 0
    while (level := [each for each in level if isinstance(each, dict | list)]) and depth <= MAX_DEPTH:
        depth += 1
        level = [each for outer in level for each in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


class Gate:
    """In front of the app: bodies are read here, within their bounds; every answer gets the same safe headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(each for each in _HEADERS if each[0] not in there)]
            await send(message)

        is_webhook = scope["path"].startswith("/v1/webhooks/")
        cap = MAX_WEBHOOK_BYTES if is_webhook else MAX_BODY_BYTES
        try:
            with anyio.fail_after(_BODY_SECONDS):
                body = await _read(scope, receive, cap)
        except (Problem, TimeoutError) as refused:
            problem = refused if isinstance(refused, Problem) else Problem("request-timeout", "the body did not arrive")
            await _drain(scope, receive)
            # What is left of the body is not read: the connection has to go.
            problem.headers = {"Connection": "close"}
            await problem.response(scope["path"])(scope, receive, sending)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), sending)


async def _read(scope: Scope, receive: Receive, cap: int) -> bytes | None:
    """The whole body, or `None` when the client went away. Raises: Problem."""
    told = dict(scope["headers"]).get(b"content-length", b"0")
    too_large = Problem("too-large", f"the body has more than {cap:,} bytes")
    if told.isdigit() and int(told[:20]) > cap:
        raise too_large
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > cap:
            raise too_large
        more = message.get("more_body", False)
    return body


async def _drain(scope: Scope, receive: Receive) -> None:
    """Take a little more of a body that is too large: a client that still sends would not hear the answer."""
    if b"expect" in dict(scope["headers"]):
        return
    left = _DRAINED_BYTES
    with anyio.move_on_after(_DRAIN_SECONDS):
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
