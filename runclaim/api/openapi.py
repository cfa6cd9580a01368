"""The OpenAPI document: served at /openapi.json, and the same for every caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi
from starlette.responses import JSONResponse

import runclaim
from runclaim.api.action_responses import ACTION_EXAMPLE
from runclaim.api.examples import RUN_EXAMPLE
from runclaim.api.responses import ProblemOut

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

_TEXT: Final = (
    "Durable runs for Celery over HTTP. Every error is `application/problem+json` (RFC 9457);"
    " programs should read its `code`."
)
_BEARER: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token from `runclaim token create`. Each operation names the scope that it requires.",
}
_PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "enqueue_run": ("idempotency-key",),
    "cancel_run": ("idempotency-key",),
    "cancel_runs": ("idempotency-key",),
    "retry_run": ("idempotency-key",),
    "rerun_run": ("idempotency-key",),
    "resume_run": ("idempotency-key",),
    "retry_action": ("idempotency-key",),
    "resolve_action": ("idempotency-key",),
    "get_run": ("prefer", "if-none-match"),
    "claim_run": ("prefer",),
    "follow": ("last-event-id",),
}
_HEADERS: Final[dict[str, tuple[str, str]]] = {
    "idempotency-key": (
        "Idempotency-Key",
        "Repeating a request with the same key does the work once and returns the first answer.",
    ),
    "prefer": ("Prefer", "`wait=20`: wait up to 20 seconds (at most 30) before answering."),
    "if-none-match": ("If-None-Match", "The ETag of your copy; the answer is 304 while the run has not changed."),
    "last-event-id": ("Last-Event-ID", "Only events after this one."),
}


def describe(app: FastAPI) -> None:
    """Make the app tell of itself at /openapi.json."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

    async def serve(request: Request) -> JSONResponse:
        prefix = request.scope.get("root_path", "")
        return JSONResponse(app.openapi() | ({"servers": [{"url": prefix}]} if prefix else {}))

    app.add_route("/openapi.json", serve, methods=["GET"], include_in_schema=False)


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(
        title="runclaim", version=runclaim.__version__, description=_TEXT, routes=app.routes, openapi_version="3.1.0"
    )
    parts = found["components"]
    for ours in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(ours, None)
    problem = ProblemOut.model_json_schema(ref_template="#/components/schemas/{model}")
    parts["schemas"] |= problem.pop("$defs") | {"Problem": problem}
    # The framework leaves out what is null in an example, and null is what these say.
    parts["schemas"]["RunOut"]["examples"] = [RUN_EXAMPLE]
    parts["schemas"]["ActionOut"]["examples"] = [ACTION_EXAMPLE]
    parts["securitySchemes"] = {"bearer": _BEARER}
    for path in found["paths"].values():
        for operation in path.values():
            _complete(operation)
    return found


def _complete(operation: dict[str, Any]) -> None:
    """What FastAPI does not know: its own 422 is ours, and headers are read by hand."""
    if "application/json" in operation["responses"].get("422", {}).get("content", {}):
        del operation["responses"]["422"]
    for name in _PARAMETERS.get(operation["operationId"], ()):
        header, said = _HEADERS[name]
        told = {"name": header, "in": "header", "required": False, "description": said, "schema": {"type": "string"}}
        operation.setdefault("parameters", []).append(told)
