"""Erasing what ended runs hold: for good, in batches, and with a scope of its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from fastapi import Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from runclaim.api.requests import EraseRequest
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.ledger.doors.tokens import Scope
from runclaim.service.erasure import erasable, erase_all, whose

routes: Final = Routes()


class ErasedOut(BaseModel):
    """What was erased, or with `dry_run` would be."""

    runs: int = Field(description="How many runs; at most 1000 in one request.")
    more: bool = Field(description="Whether others are left: send the request again.")


@routes.declare(
    "POST",
    "/v1/runs:erase",
    scope=Scope.RUNS_ERASE,
    quota="change",
    takes_json=True,
    problems=["state-conflict"],
    answers={200: {"model": ErasedOut, "description": "What was erased. Repeating the request is harmless."}},
    tags=["runs"],
)
def erase_runs(body: EraseRequest, caller: CurrentCaller) -> Response:
    """
    Blank inputs, results, errors, findings, payloads and the journal of ended runs; the runs and their keys stay.

    Nothing is erased while one of the runs has not ended, or one of their actions is still to be sent.
    """
    access = caller.server.access
    named = whose(caller.project(body.project), flow=body.flow, key=body.key, subject=body.subject)
    if body.dry_run:
        found = erasable(access, named, keys=body.blank_key)
    else:
        found = erase_all(access, named, by=caller.name, keys=body.blank_key)
    return JSONResponse(asdict(found))
