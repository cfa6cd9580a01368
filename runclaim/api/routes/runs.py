"""Runs: made, listed and read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

from anyio.to_thread import run_sync
from fastapi import Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from runclaim import tracing
from runclaim.api.auth import Caller
from runclaim.api.error_problems import of_input
from runclaim.api.idempotency import Done, Show, once
from runclaim.api.long_poll import until, wait_of
from runclaim.api.page_tokens import page_token, question_of
from runclaim.api.problems import Problem
from runclaim.api.requests import Enqueue, Name
from runclaim.api.responses import RunBrief, RunOut, RunsOut, State
from runclaim.api.routing import Asker, Doors
from runclaim.errors import InputError
from runclaim.flows.client.new_run import options_of_door
from runclaim.flows.client.registered_flow import InputRefused
from runclaim.ledger import read
from runclaim.ledger.doors.run_pages import MOST, RunFilter, RunLine, list_runs, run_line
from runclaim.ledger.doors.tokens import Scope
from runclaim.ledger.enqueue import enqueue
from runclaim.states import TERMINAL, RunState

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.ledger.new_run import NewRun

doors: Final = Doors()
_ENDS: Final = TERMINAL | {RunState.BLOCKED}
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


def etag(line: RunLine) -> str:
    """Changes whenever what is shown of the run does."""
    return f'"{line.fence}{"-cancel" if line.cancel_requested else ""}"'


def shown_to(caller: Caller) -> Show:
    """
    How a run is shown to a caller: whole, or to whoever may not read its id and its state.

    Raises: Problem when the run was purged.
    """

    def show(conn: Connection, run_id: str) -> tuple[Any, dict[str, str]]:
        if (line := run_line(conn, run_id)) is None:
            detail = f"the key belongs to run {run_id}, which was purged; nothing was enqueued"
            raise Problem("run-purged", detail, more={"run_id": run_id})
        return whole(conn, line) if caller.reads else brief(line), {"ETag": etag(line)}

    return show


def brief(line: RunLine) -> dict[str, Any]:
    """What a token without `runs:read` sees of a run."""
    return {"id": line.id, "state": str(line.state)}


def whole(conn: Connection, line: RunLine) -> dict[str, Any]:
    """The run with its input, and its result once it has succeeded."""
    view = read.run(conn, line.id)
    has_result = line.state is RunState.SUCCEEDED
    result = read.results(conn, line.id).get(line.phase) if has_result else None
    return line.as_json() | {"input": view.input if view else None, "result": result}


@doors.door(
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
def enqueue_run(body: Enqueue, request: Request, caller: Asker) -> Response:
    """
    Enqueue a run of a flow, or get the run that its key already has.

    With an Idempotency-Key, a repeated request gets the first answer until a day after the run has ended. A token
    without `runs:read` gets only the id and state of the run.
    """
    service, project = caller.service, caller.project(body.project)
    service.room.require("live-runs", project)
    new = _new_run(caller, body, project, request)

    def work(conn: Connection) -> Done:
        made = enqueue(conn, [new])[0]
        headers = {"Location": f"runs/{made.run_id}"}
        if not made.created:
            return Done(200, made.run_id, headers)
        return Done(201, made.run_id, headers, then=lambda: service.ring_new(new, is_first=True))

    return once(caller, request, project=project, payload=body.model_dump(), work=work, show=shown_to(caller))


def _new_run(caller: Caller, body: Enqueue, project: str, request: Request) -> NewRun:
    flow = caller.service.flow(body.flow)
    options = options_of_door(delay=timedelta(seconds=body.delay_seconds), priority=body.priority)
    # The caller's trace, also where no SDK of this process has made it the current one.
    trace = tracing.carrier() or tracing.carried(request.headers)
    try:
        return flow.new_run(
            body.input, options, project=project, key=body.key, subject=body.subject, trace_context=trace
        )
    except InputRefused:
        raise
    except InputError as error:
        raise of_input(error, flow.description.fields) from error


@doors.door(
    "GET",
    "/v1/runs",
    scope=Scope.RUNS_READ,
    problems=["invalid-page-token"],
    answers={200: {"model": RunsOut, "description": "A page of runs; `Link: …; rel=next` leads to the next page."}},
    tags=["runs"],
)
def list_of_runs(asked: Annotated[Listing, Query()], request: Request, caller: Asker) -> JSONResponse:
    """The runs of a project, newest first, in pages."""
    service = caller.service
    wanted = RunFilter(
        project=caller.project(asked.project),
        flow=asked.flow,
        states=frozenset(RunState(state) for state in asked.state),
        since=asked.since,
        until=asked.until,
        oldest_first=asked.order_by.endswith("asc"),
    )
    question = question_of(wanted)
    after = None if asked.page_token is None else service.place_of(question, asked.page_token)
    page = service.ask(lambda conn: list_runs(conn, wanted, after=after, limit=asked.page_size))
    token = "" if page.next_after is None else page_token(service.page_key, question, page.next_after)
    shown = {"runs": [line.as_json() for line in page.runs], "next_page_token": token}
    return JSONResponse(shown, headers=next_link(request, token))


def next_link(request: Request, token: str) -> dict[str, str]:
    """The header that leads to the next page, relative to this one, unless this is the last."""
    return {"Link": f'<?{request.url.include_query_params(page_token=token).query}>; rel="next"'} if token else {}


@doors.door(
    "GET",
    "/v1/runs/{run_id:uuid}",
    scope=Scope.RUNS_READ,
    answers={
        200: {"model": RunOut, "description": "The run.", "headers": {"ETag": {"schema": {"type": "string"}}}},
        304: {"description": "The run has not changed (If-None-Match)."},
    },
    tags=["runs"],
)
async def get_run(run_id: UUID, request: Request, caller: Asker) -> Response:
    """
    A run with its input, and its result once it has succeeded.

    With `Prefer: wait=20` the answer comes when the run ends or is blocked, or after 20 seconds (at most 30).
    """
    wait = wait_of(request)
    line = await until(
        lambda: caller.run(str(run_id)),
        enough=lambda found: found.state in _ENDS,
        seconds=wait or 0,
        request=request,
        caller=caller,
        project=lambda found: found.project,
    )
    headers = {"ETag": etag(line)} | ({} if wait is None else {"Preference-Applied": f"wait={wait}"})
    if _is_known(request, etag(line)):
        return Response(status_code=304, headers=headers)
    body = await run_sync(lambda: caller.service.ask(lambda conn: whole(conn, line)))
    return JSONResponse(body, headers=headers)


def _is_known(request: Request, current: str) -> bool:
    given = [each.strip() for each in ",".join(request.headers.getlist("if-none-match")).split(",")]
    return "*" in given or current in [each.removeprefix("W/") for each in given]
