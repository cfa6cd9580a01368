"""
Bodies: taken up to a size and within a time, once it is known who sends them, and read as strict JSON.

A field that is given twice, NaN, an infinite number and nesting deeper than 32 are refused: two programs that read
such a text would not read the same.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import anyio
from fastapi import Request

from runclaim.api.problems import Problem

#: An input of 256 kB, and the rest of the body around it.
MAX_BODY_BYTES: Final = 320 * 1024
MAX_DEPTH: Final = 32
_BODY_SECONDS: Final = 20.0
#: Of what is thrown away before a refusal is told.
_DRAINED_BYTES: Final = 4 * 1024 * 1024
_DRAIN_SECONDS: Final = 1.0


class Buffers:
    """How many bytes of unfinished bodies this process holds."""

    def __init__(self, most: int = 64 * 1024 * 1024) -> None:
        self.most, self.held = most, 0

    def add(self, size: int) -> None:
        """Hold `size` more bytes. Raises: Problem when there is no room."""
        self.held += size
        if self.held > self.most:
            raise Problem("busy", "too many request bodies are being sent to this server; try again later")


class StrictRequest(Request):
    """A request whose body is bounded and whose JSON is strict."""

    async def body(self) -> bytes:
        """The whole body, at most as much as a run needs. Raises: Problem."""
        return await self.body_up_to(MAX_BODY_BYTES)

    async def body_up_to(self, cap: int) -> bytes:
        """The whole body, at most `cap` bytes. Raises: Problem, ClientDisconnect."""
        if not hasattr(self, "_body"):
            try:
                with anyio.fail_after(_BODY_SECONDS):
                    self._body = await _read(self, cap)
            except (Problem, TimeoutError) as refused:
                late = Problem("request-timeout", f"the body did not arrive within {_BODY_SECONDS:g} s")
                problem = refused if isinstance(refused, Problem) else late
                await _drain(self)
                # What is left of the body is not read: the connection has to go.
                problem.headers = {"Connection": "close"}
                raise problem from None
        return self._body

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
        raise Problem("bad-request", "the body is not JSON") from error
    if _depth(found) > MAX_DEPTH:
        raise Problem("bad-request", f"the body is nested more than {MAX_DEPTH} levels deep")
    return found


class _Refused(Exception):
    """What is wrong with a body."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("has the same field twice in one object")
    return found


def _no_constant(constant: str) -> Any:
    raise _Refused(f"contains {constant}, which is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise _Refused("contains a number that is too large")
    return number


def _depth(value: Any) -> int:
    """How deeply objects and lists are nested, up to one more than is allowed."""
    level, depth = [value], 0
    while (level := [each for each in level if isinstance(each, dict | list)]) and depth <= MAX_DEPTH:
        depth += 1
        level = [each for outer in level for each in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


async def _read(request: Request, cap: int) -> bytes:
    too_large = Problem("too-large", f"the body is larger than {cap:,} bytes")
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > len(str(cap)) or int(length) > cap):
        raise too_large
    buffers: Buffers = request.app.state.server.buffers
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            buffers.add(len(chunk))
            if len(body) > cap:
                raise too_large
    finally:
        buffers.held -= len(body)
    return bytes(body)


async def _drain(request: Request) -> None:
    """Take a little more of a body that is too large: a client that still sends would not hear the answer."""
    if "expect" in request.headers:
        return
    left = _DRAINED_BYTES
    with anyio.move_on_after(_DRAIN_SECONDS):
        while left > 0:
            message = await request.receive()
            left -= len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
