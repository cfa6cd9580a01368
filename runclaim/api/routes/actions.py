"""Planned actions: listed, read, and decided by people who know what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from runclaim.api.action_responses import ActionBrief, ActionOut, ActionsOut, ActionStateName
from runclaim.api.auth import no_action
from runclaim.api.idempotency import Render, respond
from runclaim.api.page_tokens import page_token
from runclaim.api.requests import Name, Resolved
from runclaim.api.routes.runs import next_link
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.flows.client.changes import ResolveAction, RetryAction
from runclaim.ledger.actions import decide
from runclaim.ledger.actions.settle import ActionState
from runclaim.ledger.doors.run_pages import MOST
from runclaim.ledger.doors.tokens import Scope
from runclaim.service.actions import action_json, action_page
from runclaim.service.once import Answer

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.api.auth import Caller

routes: Final = Routes()
_PROBLEMS: Final = ("state-conflict", "request-in-flight", "idempotency-key-reused")


class Listing(BaseModel):
    """The parameters of a listing."""

    model_config = ConfigDict(extra="forbid")

    project: Name | None = None
    run: UUID | None = Field(None, description="Actions of this run.")
    state: ActionStateName | None = None
    page_size: int = Field(50, ge=1, description=f"Values above {MOST} are treated as {MOST}.")
    page_token: str | None = Field(None, max_length=512, description="From `next_page_token`.")


@routes.declare(
    "GET",
    "/v1/actions",
    scope=Scope.RUNS_READ,
    problems=["invalid-page-token"],
    answers={
        200: {"model": ActionsOut, "description": "A page of actions; `Link: …; rel=next` leads to the next page."}
    },
    tags=["actions"],
)
def list_of_actions(query: Annotated[Listing, Query()], request: Request, caller: CurrentCaller) -> JSONResponse:
    """The planned actions of a project or of a run, newest first, in pages."""
    server, run_id = caller.server, None if query.run is None else str(query.run)
    whose = None if run_id is None else caller.run(run_id).project
    project = caller.project(query.project or whose)
    state = None if query.state is None else ActionState(query.state)
    question = ["actions", project, run_id or "", state or ""]
    after = None if query.page_token is None else server.place_of(question, query.page_token)
    size = min(query.page_size, MOST)
    page = server.ask(
        lambda conn: action_page(conn, project=project, run_id=run_id, state=state, after=after, limit=size)
    )
    token = "" if page.next_after is None else page_token(server.page_key, question, page.next_after)
    body = {"actions": [action_json(each) for each in page.actions], "next_page_token": token}
    return JSONResponse(body, headers=next_link(request, token))


@routes.declare(
    "GET",
    "/v1/actions/{action_id:uuid}",
    scope=Scope.RUNS_READ,
    answers={200: {"model": ActionOut, "description": "The action."}},
    tags=["actions"],
)
def get_action(action_id: UUID, caller: CurrentCaller) -> JSONResponse:
    """A planned action: what is sent, and what became of it."""
    action, _ = caller.action(str(action_id))
    return JSONResponse(action_json(action))


@routes.declare(
    "POST",
    "/v1/actions/{action_id:uuid}:retry",
    scope=Scope.RUNS_WRITE,
    quota="change",
    problems=_PROBLEMS,
    answers={
        202: {
            "model": ActionOut | ActionBrief,
            "description": "The action is due now; the body shows it, `Retry-After` says when to look again.",
        }
    },
    tags=["actions"],
)
def retry_action(action_id: UUID, request: Request, caller: CurrentCaller) -> Response:
    """
    Send a failed or unknown action again, under the same idempotency key.

    An unknown action may have arrived. If its kind has a lookup, the other side is asked before anything is sent;
    otherwise it may arrive twice.
    """
    action, project = caller.action(str(action_id))
    return respond(
        caller,
        request,
        RetryAction(action.id),
        project=project,
        payload=None,
        answer=lambda due: Answer(202, due.run_id, {"Retry-After": "1"}),
        render=_render_for(caller, action.id),
    )


@routes.declare(
    "POST",
    "/v1/actions/{action_id:uuid}:resolve",
    scope=Scope.RUNS_WRITE,
    quota="change",
    takes_json=True,
    problems=_PROBLEMS,
    answers={200: {"model": ActionOut | ActionBrief, "description": "The action as it ended."}},
    tags=["actions"],
)
def resolve_action(action_id: UUID, body: Resolved, request: Request, caller: CurrentCaller) -> Response:
    """Record what became of an unknown action: it arrived as `upstream_id`, or never arrived. Nothing is sent."""
    action, project = caller.action(str(action_id))
    return respond(
        caller,
        request,
        ResolveAction(action.id, body.upstream_id, caller.name),
        project=project,
        payload=body.model_dump(),
        answer=lambda resolved: Answer(200, resolved.run_id),
        render=_render_for(caller, action.id),
    )


def _render_for(caller: Caller, action_id: str) -> Render:
    """How an action is shown: whole, or only its id and state to a caller who may not read."""

    def render(conn: Connection, _run_id: str) -> tuple[Any, dict[str, str]]:
        if (action := decide.action(conn, action_id)) is None:
            raise no_action(action_id)
        return action_json(action) if caller.reads else {"id": action.id, "state": str(action.state)}, {}

    return render
