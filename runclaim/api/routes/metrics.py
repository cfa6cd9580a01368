"""Metrics of the ledger for Prometheus, from any API process: the figures are the ledger's, not the process's."""

from __future__ import annotations

from typing import Final

from fastapi import Request, Response

from runclaim.api.problems import Problem
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.ledger.doors.tokens import Scope

routes: Final = Routes()
_TEXT: Final = {"text/plain": {"schema": {"type": "string"}, "example": "runclaim_up 1.0\n"}}


@routes.declare(
    "GET",
    "/metrics",
    scope=Scope.RUNS_READ,
    answers={200: {"description": "Metrics in the Prometheus text format.", "content": _TEXT}},
    tags=["health"],
)
def metrics(request: Request, caller: CurrentCaller) -> Response:
    """Queues, latencies, outcomes and refusals across all projects; runs, keys, inputs and projects are not named."""
    try:
        from runclaim.metrics import CONTENT_TYPE, LedgerCollector, exposition
    except ImportError as missing:
        raise Problem(
            "not-found", "metrics are not installed on this server: pip install 'runclaim[metrics]'"
        ) from missing
    state = request.app.state
    if not hasattr(state, "collector"):
        state.collector = LedgerCollector(lambda: caller.server.database)
    return Response(exposition(state.collector), media_type=CONTENT_TYPE)
