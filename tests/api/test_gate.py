"""What no route has foreseen, on its way out."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from runclaim.api.gate import Gate

SCOPE = {
    "type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "headers": [], "client": ("127.0.0.1", 1),
    "query_string": b"", "http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "root_path": "",
}  # fmt: skip


async def breaks_after_its_beginning(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ZeroDivisionError("of something inside")


def test_an_answer_that_breaks_in_the_middle_has_no_end_that_looks_like_one():
    """
    INVARIANT: who gets a part of an answer can tell that it is not the whole.

    Breaks if the gate returns as if the answer were finished; the server then ends it in order.
    """
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    with pytest.raises(ConnectionAbortedError, match="ZeroDivisionError"):
        anyio.run(Gate(breaks_after_its_beginning), SCOPE, receive, send)
    assert ["http.response.start", "http.response.body"] == [each["type"] for each in sent]


def test_the_gate_adds_the_safe_headers_that_an_answer_does_not_have():
    """
    INVARIANT: each safe header is in an answer once, as the route wrote it.

    Breaks if the gate looks for the value and not the name: a route's own Cache-Control would come twice.
    """
    sent: list[Any] = []

    async def answers(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=60")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    anyio.run(Gate(answers), SCOPE, receive, send)

    assert [(b"cache-control", b"max-age=60"), (b"x-content-type-options", b"nosniff")] == sent[0]["headers"]
