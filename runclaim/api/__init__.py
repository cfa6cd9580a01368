"""
The HTTP API: runs for programs that do not import the application.

`create_app` makes an ASGI application; `python -m runclaim.api` serves it, as `runclaim api` does.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from runclaim.api import error_problems as refusals
from runclaim.api.gate import Gate
from runclaim.api.openapi import describe
from runclaim.api.routes import actions, erasure, events, flows, health, metrics, phase_moves, runs, webhooks, workers
from runclaim.api.routes import run_changes as changes
from runclaim.api.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fastapi.telemetry import TelemetryConfig

    from runclaim.app import Runclaim
    from runclaim.config import Config

_ROUTES = (runs, changes, erasure, phase_moves, events, actions, flows, workers, webhooks, health, metrics)


def create_app(config: Config, application: Runclaim | None = None) -> FastAPI:
    """The API on the ledger of `config`; with an application it publishes at once and takes its webhooks."""
    server = Server(config, application)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        server.close()

    # Not the framework's own pages: they would load scripts from elsewhere.
    # Nor its telemetry: it reports queries and texts of errors, and accepts any caller's trace as its parent.
    quiet: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
    app = FastAPI(
        telemetry=quiet, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan
    )
    app.state.server = server
    for module in _ROUTES:
        app.include_router(module.routes)

    def allowed(path: str) -> Sequence[str]:
        return sorted({method for module in _ROUTES for method in module.routes.allowed(path)})

    refusals.add_to(app, allowed)
    describe(app)
    app.add_middleware(Gate)
    return app
