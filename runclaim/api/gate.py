"""
The gate in front of the app, through which every request and every answer goes.

An answer gets the safe headers, a request one line in the log, and an unexpected error ends here.
Nothing is read here. A body is read by its route, once it is known who sends it and how much the route takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

from runclaim import logs
from runclaim.api.error_problems import unforeseen
from runclaim.api.origins import shown_address
from runclaim.api.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger: Final = logs.logger("runclaim.api.access")

_HEADERS: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_LONGEST_PATH: Final = 200


class Gate:
    """Middleware of ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                there = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(each for each in _HEADERS if each[0] not in there)]
                _log(scope, message["status"])
            await send(message)

        try:
            if (refused := _smuggled(scope)) is None:
                await self._app(scope, receive, sending)
                return
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the server would print what the error says
            refused = unforeseen(scope["method"], scope["path"], error)
            if begun:
                # The answer cannot be taken back: its end has to look like none.
                raise ConnectionAbortedError(type(error).__name__) from None
        await refused.response(scope["path"])(scope, receive, sending)


def _smuggled(scope: Scope) -> Problem | None:
    """A body with two lengths is read differently by every program on its way (RFC 9112, 6.1)."""
    names = [name for name, _ in scope["headers"]]
    if b"content-length" in names and b"transfer-encoding" in names:
        problem = Problem("bad-request", "send Content-Length or Transfer-Encoding, not both")
        problem.headers = {"Connection": "close"}
        return problem
    return None


def _log(scope: Scope, status: int) -> None:
    # Without the query, where people put tokens; as it was sent, so that it steers no terminal.
    path = scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "replace")
    logger.info("%s %s %s %d", shown_address(scope), scope["method"], path[:_LONGEST_PATH], status)
