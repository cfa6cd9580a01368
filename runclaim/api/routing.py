"""
Routes: each is declared once, with its scope and every answer that it can give. Nothing else makes a route.

A request is authenticated before its body is parsed, and counted before anything is done.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import compile_path

from runclaim.api.auth import Caller, authenticate
from runclaim.api.bodies import StrictRequest
from runclaim.api.problems import KINDS, MEDIA_TYPE, Problem

if TYPE_CHECKING:
    import re

    from starlette.routing import Match
    from starlette.types import Receive, Scope, Send

    from runclaim.api.server import Server
    from runclaim.ledger.doors import tokens

Endpoint = Callable[..., Any]

#: What every route can answer, and what only those with a token, a body or the ledger can.
_ALWAYS: Final = ("bad-request", "not-found", "method-not-allowed", "internal", "ledger-unavailable", "ledger-refused")
_WITH_TOKEN: Final = ("unauthorized", "scope-missing", "quota-exceeded")
_WITH_BODY: Final = ("request-timeout", "too-large", "not-json", "invalid", "busy")


def caller_of(request: Request) -> Caller:
    """The caller that the request was authenticated as."""
    found: Caller = request.state.caller
    return found


def server_of(request: Request) -> Server:
    """The server of this app."""
    found: Server = request.app.state.server
    return found


CurrentCaller = Annotated[Caller, Depends(caller_of)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What guards a route: its scope (`None`: no token is needed), and the kind of quota that it takes from."""

    scope: tokens.Scope | None
    quota: str | None = None
    takes_json: bool = False


class Guarded(APIRoute):
    """A route behind its guard. HEAD is allowed wherever GET is."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route is for this request."""
        return super().matches({**scope, "method": "GET"} if self._is_head(scope) else scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it; the server leaves the body of a HEAD out."""
        if self._is_head(scope):
            await self.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    def _is_head(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] == "HEAD" and "GET" in (self.methods or ())

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, behind what has to come first."""
        inner = super().get_route_handler()
        guard: Guard = self.endpoint.__guard__  # type: ignore[attr-defined]

        async def handler(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            headers: dict[str, str] = {}
            if guard.scope is not None:
                needed = guard.scope
                server = server_of(request)
                caller = strict.state.caller = await run_sync(lambda: authenticate(server, strict, needed))
                if guard.quota is not None:
                    kind = guard.quota
                    headers = await run_sync(lambda: server.quota.take(kind, caller.token.id))
            if guard.takes_json:
                _require_json(strict)
                # Here, and not where the framework would call whatever is wrong with it a bad request.
                if await strict.body():
                    await strict.json()
            response = await inner(strict)
            response.headers.update(headers)
            return response

        return handler


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem("not-json", "send Content-Type: application/json")


class Routes(APIRouter):
    """The routes of the API, in the order of their declarations."""

    def __init__(self) -> None:
        super().__init__(route_class=Guarded)
        self._paths: list[tuple[re.Pattern[str], str]] = []

    def declare(
        self,
        method: str,
        path: str,
        *,
        scope: tokens.Scope | None,
        answers: dict[int | str, dict[str, Any]],
        problems: Sequence[str] = (),
        quota: str | None = None,
        takes_json: bool = False,
        **how: Any,
    ) -> Callable[[Endpoint], Endpoint]:
        """
        Declare a route: `answers` are its successes by status, `problems` the codes in addition to those that all have.

        `scope` is what a token needs; `None` needs no token.
        """
        codes = {*_ALWAYS, *problems, *(_WITH_TOKEN if scope else ()), *(_WITH_BODY if takes_json else ())}

        def add(endpoint: Endpoint) -> Endpoint:
            endpoint.__guard__ = Guard(scope=scope, quota=quota, takes_json=takes_json)  # type: ignore[attr-defined]
            self.add_api_route(
                path,
                endpoint,
                methods=[method],
                response_model=None,
                status_code=int(min(answers)),
                responses=_documented(codes) | answers,
                operation_id=endpoint.__name__,
                openapi_extra={"security": [{"bearer": [str(scope)]}] if scope else []},
                **how,
            )
            methods = ("GET", "HEAD") if method == "GET" else (method,)
            self._paths += [(compile_path(path)[0], each) for each in methods]
            return endpoint

        return add

    def allowed(self, path: str) -> list[str]:
        """The methods of every route at a path, sorted."""
        return sorted({method for pattern, method in self._paths if pattern.match(path)})


def _documented(codes: set[str]) -> dict[int | str, dict[str, Any]]:
    """The problems of a route, by status, each code with an example."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in sorted(codes):
        kind = KINDS[code]
        entry = found.setdefault(kind.status, {"description": kind.title, "content": {MEDIA_TYPE: {}}})
        content = entry["content"][MEDIA_TYPE]
        content["schema"] = {"$ref": "#/components/schemas/Problem"}
        example = Problem(code, kind.title).body("/v1/runs")
        content.setdefault("examples", {})[code] = {"summary": kind.title, "value": example}
    return found
