"""Runs: made, listed and read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from runclaim import tracing
from runclaim.api.auth import Caller
from runclaim.api.error_problems import of_input
from runclaim.api.idempotency import Render, respond
from runclaim.api.long_poll import until, wait_of
from runclaim.api.page_tokens import page_token, question_of
from runclaim.api.problems import Problem
from runclaim.api.requests import EnqueueRequest, Name
from runclaim.api.responses import RunBrief, RunOut, RunsOut, State
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.errors import InputError
from runclaim.flows.client.changes import view_of
from runclaim.flows.client.enqueue import Enqueue
from runclaim.flows.declare.registered_inputs import InputRefused
from runclaim.ledger import read
from runclaim.ledger.doors.run_pages import MOST, RunFilter, list_runs
from runclaim.ledger.doors.tokens import Scope
from runclaim.ledger.read import RunLine
from runclaim.service.flows import known_flow, requested_run
from runclaim.service.once import Answer
from runclaim.service.run_request import RunRequest
from runclaim.service.runs import ENDS, run_json, whole_run_json
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from runclaim.ledger.enqueue import Enqueued
    from runclaim.ledger.new_run import NewRun
    from runclaim.ledger.read import RunView

routes: Final = Routes()
LOCATION: Final = {"Location": {"description": "The address of the run.", "schema": {"type": "string"}}}
_REPLAYED: Final = {
    "Idempotency-Replayed": {
        "description": "The response to an earlier request with the same key.",
        "schema": {"const": "true"},
    }
}


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is before the year 1 or after 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]


class Listing(BaseModel):
    """The parameters of a listing."""

    model_config = ConfigDict(extra="forbid")

    project: Name | None = None
    flow: Name | None = None
    state: list[State] = Field(default_factory=list, max_length=8)
    since: Moment | None = Field(None, description="Enqueued at this time or later (RFC 3339).")
    until: Moment | None = Field(None, description="Enqueued before this time.")
    order_by: Literal["enqueued_at desc", "enqueued_at asc"] = "enqueued_at desc"
    page_size: int = Field(50, ge=1, description=f"Values above {MOST} are treated as {MOST}.")
    page_token: str | None = Field(None, max_length=512, description="From `next_page_token`.")


def etag(run: RunLine | RunView) -> str:
    """Changes whenever what is shown of the run does."""
    return f'"{run.fence}{"-cancel" if run.cancel_requested else ""}"'


def render_for(caller: Caller) -> Render:
    """
    How a run is shown to a caller: whole, or only its id and state to a caller who may not read.

    Raises: Problem when the run was purged.
    """

    def render(conn: Connection, run_id: str) -> tuple[Any, dict[str, str]]:
        if (view := read.run(conn, run_id)) is None:
            detail = f"the key belongs to run {run_id}, which was purged; nothing was enqueued"
            raise Problem("run-purged", detail, more={"run_id": run_id})
        return whole_run_json(conn, view) if caller.reads else brief(view), {"ETag": etag(view)}

    return render


def brief(run: RunLine | RunView) -> dict[str, Any]:
    """What a token without `runs:read` sees of a run."""
    return {"id": run.id, "state": str(run.state)}


@routes.declare(
    "POST",
    "/v1/runs",
    scope=Scope.RUNS_WRITE,
    quota="enqueue",
    takes_json=True,
    problems=["key-conflict", "request-in-flight", "idempotency-key-reused", "unknown-flow", "run-purged"],
    answers={
        200: {"model": RunOut | RunBrief, "description": "The key already had this run.", "headers": LOCATION},
        201: {"model": RunOut | RunBrief, "description": "A new run was enqueued.", "headers": LOCATION | _REPLAYED},
    },
    tags=["runs"],
)
def enqueue_run(body: EnqueueRequest, request: Request, caller: CurrentCaller) -> Response:
    """
    Enqueue a run of a flow, or get the run that its key already has.

    With an Idempotency-Key, a repeated request gets the first answer until a day after the run has ended. A token
    without `runs:read` gets only the id and state of the run.
    """
    server, project = caller.server, caller.project(body.project)
    server.room.require("live-runs", project)
    new = _new_run(caller, body, project, request)

    return respond(
        caller,
        request,
        Enqueue([new]),
        project=project,
        payload=body.model_dump(),
        answer=_enqueued,
        render=render_for(caller),
    )


def _enqueued(runs: Sequence[Enqueued]) -> Answer:
    (run,) = runs
    return Answer(201 if run.created else 200, run.run_id, {"Location": f"runs/{run.run_id}"})


def _new_run(caller: Caller, body: EnqueueRequest, project: str, request: Request) -> NewRun:
    flow = known_flow(caller.server.access, body.flow, project)
    wanted = RunRequest(
        flow=body.flow,
        input=body.input,
        project=project,
        key=body.key,
        subject=body.subject,
        delay=timedelta(seconds=body.delay_seconds),
        priority=body.priority,
    )
    try:
        # The caller's trace, even if no SDK of this process has made it the current one.
        return requested_run(flow, wanted, trace_context=tracing.carrier() or tracing.carried(request.headers))
    except InputRefused:
        raise
    except InputError as error:
        raise of_input(error, flow.description.fields) from error


@routes.declare(
    "GET",
    "/v1/runs",
    scope=Scope.RUNS_READ,
    problems=["invalid-page-token"],
    answers={200: {"model": RunsOut, "description": "A page of runs; `Link: …; rel=next` leads to the next page."}},
    tags=["runs"],
)
def list_of_runs(query: Annotated[Listing, Query()], request: Request, caller: CurrentCaller) -> JSONResponse:
    """The runs of a project, newest first, in pages."""
    server = caller.server
    wanted = RunFilter(
        project=caller.project(query.project),
        flow=query.flow,
        states=frozenset(RunState(state) for state in query.state),
        since=query.since,
        until=query.until,
        oldest_first=query.order_by.endswith("asc"),
    )
    question = question_of(wanted)
    after = None if query.page_token is None else server.place_of(question, query.page_token)
    page = server.ask(lambda conn: list_runs(conn, wanted, after=after, limit=query.page_size))
    token = "" if page.next_after is None else page_token(server.page_key, question, page.next_after)
    body = {"runs": [run_json(line) for line in page.runs], "next_page_token": token}
    return JSONResponse(body, headers=next_link(request, token))


def next_link(request: Request, token: str) -> dict[str, str]:
    """The header that leads to the next page, relative to this one, unless this is the last."""
    return {"Link": f'<?{request.url.include_query_params(page_token=token).query}>; rel="next"'} if token else {}


@routes.declare(
    "GET",
    "/v1/runs/{run_id:uuid}",
    scope=Scope.RUNS_READ,
    answers={
        200: {"model": RunOut, "description": "The run.", "headers": {"ETag": {"schema": {"type": "string"}}}},
        304: {"description": "The run has not changed (If-None-Match)."},
    },
    tags=["runs"],
)
async def get_run(run_id: UUID, request: Request, caller: CurrentCaller) -> Response:
    """
    A run with its input, and its result once it has succeeded.

    With `Prefer: wait=20` the answer comes when the run ends or is blocked, or after 20 seconds (at most 30).
    """
    wait = wait_of(request)
    line = await until(
        lambda: caller.run(str(run_id)),
        enough=lambda found: found.state in ENDS,
        seconds=wait or 0,
        request=request,
        caller=caller,
        project=lambda found: found.project,
    )
    headers = {"ETag": etag(line)} | ({} if wait is None else {"Preference-Applied": f"wait={wait}"})
    if _is_known(request, etag(line)):
        return Response(status_code=304, headers=headers)
    body, current = await run_sync(caller.server.ask, partial(_whole, run_id=line.id))
    return JSONResponse(body, headers=headers | {"ETag": current})


def _whole(conn: Connection, run_id: str) -> tuple[dict[str, Any], str]:
    """The run as it is now, and its ETag. Raises: RunNotFound, should it have been purged."""
    view = view_of(conn, run_id)
    return whole_run_json(conn, view), etag(view)


def _is_known(request: Request, current: str) -> bool:
    given = [each.strip() for each in ",".join(request.headers.getlist("if-none-match")).split(",")]
    return "*" in given or current in [each.removeprefix("W/") for each in given]
