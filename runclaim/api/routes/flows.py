"""Flows: what can be enqueued here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from starlette.responses import JSONResponse

from runclaim.api.responses import FlowPhaseOut, FlowsOut
from runclaim.api.routing import Asker, Doors
from runclaim.ledger.doors.registered_flows import FlowRecord
from runclaim.ledger.doors.tokens import Scope

doors: Final = Doors()


@doors.door(
    "GET",
    "/v1/flows",
    scope=Scope.RUNS_READ,
    answers={200: {"model": FlowsOut, "description": "Every registered flow, by name."}},
    tags=["flows"],
)
def list_flows(caller: Asker) -> JSONResponse:
    """The registered flows, each with the JSON Schema of its input."""
    return JSONResponse({"flows": [_shown(record) for record in caller.service.flows()]})


def _shown(record: FlowRecord) -> dict[str, Any]:
    known = FlowPhaseOut.model_fields
    phases = [{name: each for name, each in asdict(phase).items() if name in known} for phase in record.phases]
    told = {"name": record.name, "phases": phases, "input": record.input}
    return told | {"own_code": record.own_code, "key": record.key, "subject": record.subject}
