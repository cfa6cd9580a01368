"""Moving a phase: live runs go on with its new name."""

from __future__ import annotations

from typing import Final

from fastapi import Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from runclaim.api.requests import MovePhaseRequest
from runclaim.api.responses import RunBrief
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.ledger.doors.tokens import Scope
from runclaim.service.phase_moves import moves_json, phase_move

routes: Final = Routes()


class PhaseMovesOut(BaseModel):
    """What was moved, and what is left."""

    runs: list[RunBrief] = Field(description="The runs whose phase was moved; at most 100 in one request.")
    movable: int = Field(description="How many are left that can be moved: send the request again.")
    running: int = Field(description="How many are running, and are left alone until they have ended their phase.")
    in_doubt: int = Field(description="How many have begun a call in that phase whose answer is not known.")
    with_both: int = Field(description="How many have a phase of the new name already.")


@routes.declare(
    "POST",
    "/v1/runs:move-phase",
    scope=Scope.RUNS_WRITE,
    quota="change",
    takes_json=True,
    problems=["invalid", "unknown-flow"],
    answers={200: {"model": PhaseMovesOut, "description": "What was moved. Repeating the request is harmless."}},
    tags=["runs"],
)
def move_phase(body: MovePhaseRequest, caller: CurrentCaller) -> Response:
    """
    Give a phase its new name in live runs that have not completed it.

    A run at the phase gets the queue and the budgets of the new one. A run that is running is left alone.
    """
    project = caller.project(body.project)
    ids = [caller.run(each.lower()).id for each in body.ids or ()]
    move = phase_move(project, flow=body.flow, old=body.old, new=body.new, key=body.key, run_ids=ids)
    return JSONResponse(moves_json(caller.server.access, move, by=caller.name, dry_run=body.dry_run))
