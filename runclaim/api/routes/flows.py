"""Flows: what can be enqueued here."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse

from runclaim.api.responses import FlowOut, FlowPhaseOut, FlowsOut
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.flows.declare.description import FlowDescription
from runclaim.ledger.doors.tokens import Scope
from runclaim.service.flows import known_flows

routes: Final = Routes()


@routes.declare(
    "GET",
    "/v1/flows",
    scope=Scope.RUNS_READ,
    answers={200: {"model": FlowsOut, "description": "Every registered flow, by name."}},
    tags=["flows"],
)
def list_flows(caller: CurrentCaller) -> JSONResponse:
    """The registered flows, each with the JSON Schema of its input."""
    return JSONResponse({"flows": [_as_listed(flow) for flow in known_flows(caller.server.access)]})


def _as_listed(flow: FlowDescription) -> dict[str, Any]:
    declared = flow.as_json()
    declared["phases"] = [{name: each[name] for name in FlowPhaseOut.model_fields} for each in declared["phases"]]
    return {name: declared[name] for name in FlowOut.model_fields}
