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
