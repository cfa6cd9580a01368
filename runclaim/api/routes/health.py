"""Whether this process is alive, and whether it can serve. No token is needed, and nothing else is revealed."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from starlette.responses import JSONResponse

from runclaim import migrations
from runclaim.api.responses import Health
from runclaim.api.routing import Routes, server_of
from runclaim.errors import RunclaimError, SchemaAhead, SchemaBehind

routes: Final = Routes()


@routes.declare(
    "GET",
    "/livez",
    scope=None,
    answers={200: {"model": Health, "description": "The process is alive."}},
    tags=["health"],
)
async def livez() -> JSONResponse:
    """Whether the process is alive; depends on nothing else."""
    return JSONResponse({"status": "ok", "checks": {}})


@routes.declare(
    "GET",
    "/readyz",
    scope=None,
    answers={
        200: {"model": Health, "description": "The ledger answers, and its schema matches this release."},
        503: {
            "model": Health,
            "description": "The ledger does not answer, or its schema does not match this release.",
            "headers": {"Retry-After": {"schema": {"type": "integer"}}},
        },
    },
    tags=["health"],
)
def readyz(request: Request) -> JSONResponse:
    """Whether requests can be served. The broker is reported but not required: beat dispatches runs later."""
    server = server_of(request)
    try:
        found = server.ask(lambda conn: migrations.fitting(conn, "of this server"))
        ledger = "ok" if found else "has no tables"
    except (SchemaAhead, SchemaBehind) as unfit:
        ledger = f"at revision {unfit.found}, this release needs {unfit.wanted}"
    except RunclaimError:
        ledger = "does not answer"
    checks = {"ledger": ledger, "broker": "not checked" if server.can_ring else "none; beat dispatches runs"}
    is_ready = ledger == "ok"
    return JSONResponse(
        {"status": "ok" if is_ready else "unavailable", "checks": checks},
        status_code=200 if is_ready else 503,
        headers={} if is_ready else {"Retry-After": "2"},
    )
