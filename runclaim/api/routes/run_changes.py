"""Changes to existing runs. The answer is 202 with the run as it is: the change may take effect later."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from fastapi import Request, Response

from runclaim.api.auth import Caller, no_run
from runclaim.api.idempotency import respond
from runclaim.api.requests import Ids
from runclaim.api.responses import RunBrief, RunOut, RunsChanged
from runclaim.api.routes.runs import LOCATION, brief, render_for
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.flows.client.changes import Cancel, Restart, view_of
from runclaim.flows.client.enqueue import Rerun
from runclaim.ledger.doors.run_pages import run_line
from runclaim.ledger.doors.tokens import Scope
from runclaim.ledger.read import RunLine
from runclaim.service.flows import known_flow
from runclaim.service.once import Answer
from runclaim.service.runs import run_json

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.flows.client.access import Change

routes: Final = Routes()
_PROBLEMS: Final = ("state-conflict", "request-in-flight", "idempotency-key-reused", "run-purged")
_LATER: Final = {"Retry-After": "1"}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "model": RunOut | RunBrief,
        "description": "The request is recorded; the body shows the run, `Retry-After` says when to look again.",
    }
}


@routes.declare(
    "POST",
    "/v1/runs/{run_id:uuid}:cancel",
    scope=Scope.RUNS_WRITE,
    quota="change",
    problems=_PROBLEMS,
    answers=_ANSWERS,
    tags=["runs"],
)
def cancel_run(run_id: UUID, request: Request, caller: CurrentCaller) -> Response:
    """Cancel a run, or ask its worker to stop if it is running. Repeating the request is harmless."""
    line = caller.run(str(run_id))
    return _change(caller, request, line, Cancel([line.id], caller.name))


@routes.declare(
    "POST",
    "/v1/runs:cancel",
    scope=Scope.RUNS_WRITE,
    quota="change",
    takes_json=True,
    problems=_PROBLEMS,
    answers={202: {"model": RunsChanged, "description": "The request is recorded for all of these runs."}},
    tags=["runs"],
)
def cancel_runs(body: Ids, request: Request, caller: CurrentCaller) -> Response:
    """Cancel up to 100 runs, all or none: if one of them is not yours or has ended otherwise, none is canceled."""
    lines = [caller.run(run_id) for run_id in dict.fromkeys(each.lower() for each in body.ids)]
    ids = [line.id for line in lines]

    def render(conn: Connection, _run_id: str) -> tuple[Any, dict[str, str]]:
        after = [_line(conn, run_id) for run_id in ids]
        return {"runs": [run_json(line) if caller.reads else brief(line) for line in after]}, {}

    return respond(
        caller,
        request,
        Cancel(ids, caller.name),
        project=lines[0].project,
        payload=body.model_dump(),
        answer=lambda _: Answer(202, lines[0].id, _LATER),
        render=render,
    )


@routes.declare(
    "POST",
    "/v1/runs/{run_id:uuid}:retry",
    scope=Scope.RUNS_WRITE,
    quota="change",
    problems=_PROBLEMS,
    answers=_ANSWERS,
    tags=["runs"],
)
def retry_run(run_id: UUID, request: Request, caller: CurrentCaller) -> Response:
    """Restart a failed run at its failed phase, with a fresh budget of attempts."""
    line = caller.run(str(run_id))
    return _change(caller, request, line, Restart("retry", line.id, caller.name))


@routes.declare(
    "POST",
    "/v1/runs/{run_id:uuid}:resume",
    scope=Scope.RUNS_WRITE,
    quota="change",
    problems=_PROBLEMS,
    answers=_ANSWERS,
    tags=["runs"],
)
def resume_run(run_id: UUID, request: Request, caller: CurrentCaller) -> Response:
    """Resume a blocked run at its blocked phase."""
    line = caller.run(str(run_id))
    return _change(caller, request, line, Restart("resume", line.id, caller.name))


@routes.declare(
    "POST",
    "/v1/runs/{run_id:uuid}:rerun",
    scope=Scope.RUNS_WRITE,
    quota="enqueue",
    problems=["request-in-flight", "idempotency-key-reused", "unknown-flow", "invalid", "run-purged"],
    answers={201: {"model": RunOut | RunBrief, "description": "The new run.", "headers": LOCATION}},
    tags=["runs"],
)
def rerun_run(run_id: UUID, request: Request, caller: CurrentCaller) -> Response:
    """Enqueue a new run with the key and input of an existing one, which is superseded if it has not ended."""
    line, server = caller.run(str(run_id)), caller.server
    server.room.require("live-runs", line.project)
    view = server.ask(partial(view_of, run_id=line.id))
    new = known_flow(server.access, line.flow, line.project).rerun_of(view)
    return respond(
        caller,
        request,
        Rerun([new], caller.name),
        project=line.project,
        payload=None,
        answer=lambda _: Answer(201, new.run_id, {"Location": new.run_id}),
        render=render_for(caller),
    )


def _change(caller: Caller, request: Request, line: RunLine, change: Change[Any]) -> Response:
    """Ask a change of one run; the answer is the run as it is then."""
    return respond(
        caller,
        request,
        change,
        project=line.project,
        payload=None,
        answer=lambda _: Answer(202, line.id, _LATER),
        render=render_for(caller),
    )


def _line(conn: Connection, run_id: str) -> RunLine:
    line = run_line(conn, run_id)
    if line is None:
        raise no_run(run_id)
    return line
