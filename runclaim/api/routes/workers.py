"""
Workers outside Celery, in any language: the ledger's own verbs and its own fence over HTTP.

A claim is text that holds its fence and its owner. A worker with another one, or an old one, gets 409 `claim-lost` and
drops the work. Repeating what a claim has recorded gets the same answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from fastapi import Request, Response
from starlette.responses import JSONResponse

from runclaim.api.auth import Caller
from runclaim.api.long_poll import until, wait_of
from runclaim.api.requests import FailedAttempt, Held, Succeeded, WorkRequest
from runclaim.api.responses import Beat, ClaimOut, Settled
from runclaim.api.routes.worker_claims import Job, begin_failure, begin_success, take
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.errors import ClaimLost
from runclaim.ledger.doors.outside_workers import held_claim, lease_of
from runclaim.ledger.doors.tokens import Scope
from runclaim.ledger.heartbeat import heartbeat, passed_over
from runclaim.service.flows import known_flow
from runclaim.sql.clock import rfc3339

if TYPE_CHECKING:
    from sqlalchemy import Connection

routes: Final = Routes()
_LOST: Final = ("claim-lost",)
_SETTLED: Final[dict[int | str, dict[str, Any]]] = {200: {"model": Settled, "description": "The outcome is recorded."}}


@routes.declare(
    "POST",
    "/v1/runs:claim",
    scope=Scope.WORKER,
    takes_json=True,
    problems=["unknown-flow"],
    answers={
        200: {"model": ClaimOut, "description": "You hold the claim of this phase."},
        204: {"description": "No run is due (with `Prefer: wait=N`: none became due in that time)."},
    },
    tags=["workers"],
)
async def claim_run(body: WorkRequest, request: Request, caller: CurrentCaller) -> Response:
    """
    Claim the run that has been due longest in one of these phases.

    Send `:heartbeat` well within `lease_seconds` until you settle it. `Prefer: wait=20` waits for work, up to 30 s.
    """
    wait = wait_of(request)
    job: Job | None = await until(
        lambda: take(caller, body),
        enough=lambda found: found is not None,
        seconds=wait or 0,
        request=request,
        caller=caller,
        project=lambda _found: caller.project(body.project),
    )
    headers = {} if wait is None else {"Preference-Applied": f"wait={wait}"}
    return Response(status_code=204, headers=headers) if job is None else JSONResponse(job.as_json(), headers=headers)


@routes.declare(
    "POST",
    "/v1/runs/{run_id:uuid}:heartbeat",
    scope=Scope.WORKER,
    takes_json=True,
    problems=[*_LOST, "unknown-flow"],
    answers={200: {"model": Beat, "description": "The lease was extended."}},
    tags=["workers"],
)
def beat(run_id: UUID, body: Held, caller: CurrentCaller) -> JSONResponse:
    """Extend the lease, never past the deadline. If `cancel_requested` is true, stop and send `:fail`."""
    line = caller.run(str(run_id))
    fence, owner = _proof(body)
    description = known_flow(caller.server.access, line.flow, line.project).description

    def work(conn: Connection) -> JSONResponse:
        claim = held_claim(conn, line.id, fence=fence, owner=owner)
        phase = description.phase(claim.phase) if claim else None
        found: dict[str, bool] = {}
        if claim and phase:
            # Whose row another transaction holds has its lease as it was; the worker beats again before that ends.
            found = heartbeat(conn, [(claim, phase.lease)]) or passed_over(conn, [claim])
        ends = lease_of(conn, line.id)
        if line.id not in found or ends is None:
            raise ClaimLost(line.id, line.phase, fence)
        told = {"lease_expires_at": rfc3339(ends.expires_at), "deadline_at": rfc3339(ends.deadline_at)}
        return JSONResponse({"id": line.id, **told, "cancel_requested": found[line.id]})

    return caller.server.database.run(work)


@routes.declare(
    "POST",
    "/v1/runs/{run_id:uuid}:succeed",
    scope=Scope.WORKER,
    takes_json=True,
    problems=[*_LOST, "result-conflict", "unknown-flow"],
    answers=_SETTLED,
    tags=["workers"],
)
def succeed(run_id: UUID, body: Succeeded, caller: CurrentCaller) -> JSONResponse:
    """Record the result of the phase and move the run on. Repeating the request gets the same answer."""
    return _settle(caller, str(run_id), body)


@routes.declare(
    "POST",
    "/v1/runs/{run_id:uuid}:fail",
    scope=Scope.WORKER,
    takes_json=True,
    problems=[*_LOST, "result-conflict", "unknown-flow"],
    answers=_SETTLED,
    tags=["workers"],
)
def fail_attempt(run_id: UUID, body: FailedAttempt, caller: CurrentCaller) -> JSONResponse:
    """End the attempt without a result: the phase is retried, or the run fails, is blocked or ends as canceled."""
    return _settle(caller, str(run_id), body)


def _settle(caller: Caller, run_id: str, body: Succeeded | FailedAttempt) -> JSONResponse:
    line = caller.run(run_id)
    fence, owner = _proof(body)
    begin = begin_success if isinstance(body, Succeeded) else begin_failure
    work, read_back = begin(caller, line, fence, owner, body)  # type: ignore[arg-type]
    database = caller.server.database
    try:
        done = database.run(work, read_back=read_back)
    except ClaimLost:
        # Told twice, perhaps: the answer of the first time.
        if (before := database.ask(read_back)) is None:
            raise
        return JSONResponse(before.as_json())
    done.then()
    return JSONResponse(done.as_json())


def _proof(body: Held) -> tuple[int, str]:
    fence, _, owner = body.claim.partition(".")
    return int(fence), owner
