"""Planned actions: listed, read, and decided by whoever knows what became of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from runclaim.api.action_responses import ActionBrief, ActionOut, ActionsOut, ActionStateName
from runclaim.api.auth import no_action
from runclaim.api.idempotency import Done, Show, once
from runclaim.api.page_tokens import page_token
from runclaim.api.problems import Problem
from runclaim.api.requests import Name, Resolved
from runclaim.api.routes.runs import next_link
from runclaim.api.routing import Asker, Doors
from runclaim.keys import nonce
from runclaim.ledger.actions import decide as decisions
from runclaim.ledger.actions.settle import ActionState
from runclaim.ledger.doors.run_pages import MOST
from runclaim.ledger.doors.tokens import Scope

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.api.auth import Caller
    from runclaim.ledger.actions.decide import ActionView

doors: Final = Doors()
_KEYED: Final = ("state-conflict", "request-in-flight", "idempotency-key-reused")


class Listing(BaseModel):
    """The parameters of a listing."""

    model_config = ConfigDict(extra="forbid")

    project: Name | None = None
    run: UUID | None = Field(None, description="Actions of this run.")
    state: ActionStateName | None = None
    page_size: int = Field(50, ge=1, description=f"Values above {MOST} are treated as {MOST}.")
    page_token: str | None = Field(None, max_length=512, description="From `next_page_token`.")


@doors.door(
    "GET",
    "/v1/actions",
    scope=Scope.RUNS_READ,
    problems=["invalid-page-token"],
    answers={
        200: {"model": ActionsOut, "description": "A page of actions; `Link: …; rel=next` leads to the next page."}
    },
    tags=["actions"],
)
def list_of_actions(asked: Annotated[Listing, Query()], request: Request, caller: Asker) -> JSONResponse:
    """The planned actions of a project or of a run, newest first, in pages."""
    service, run_id = caller.service, None if asked.run is None else str(asked.run)
    whose = None if run_id is None else caller.run(run_id).project
    project = caller.project(asked.project or whose)
    state = None if asked.state is None else ActionState(asked.state)
    question = ["actions", project, run_id or "", state or ""]
    after = None if asked.page_token is None else service.place_of(question, asked.page_token)
    size = min(asked.page_size, MOST)
    found = service.ask(
        lambda conn: decisions.list_actions(
            conn, project=project, run_id=run_id, state=state, after=after, limit=size + 1
        )
    )
    shown = found[:size]
    token = page_token(service.page_key, question, shown[-1].id) if len(found) > size else ""
    body = {"actions": [each.as_json() for each in shown], "next_page_token": token}
    return JSONResponse(body, headers=next_link(request, token))


@doors.door(
    "GET",
    "/v1/actions/{action_id:uuid}",
    scope=Scope.RUNS_READ,
    answers={200: {"model": ActionOut, "description": "The action."}},
    tags=["actions"],
)
def get_action(action_id: UUID, caller: Asker) -> JSONResponse:
    """A planned action: what is sent, and what became of it."""
    found, _ = caller.action(str(action_id))
    return JSONResponse(found.as_json())


@doors.door(
    "POST",
    "/v1/actions/{action_id:uuid}:retry",
    scope=Scope.RUNS_WRITE,
    quota="change",
    problems=_KEYED,
    answers={
        202: {
            "model": ActionOut | ActionBrief,
            "description": "The action is due now; the body shows it, `Retry-After` says when to look again.",
        }
    },
    tags=["actions"],
)
def retry_action(action_id: UUID, request: Request, caller: Asker) -> Response:
    """
    Send a failed or unknown action again, under the same idempotency key.

    An unknown action may have arrived. If its kind has a lookup, the other side is asked before anything is sent;
    otherwise it may arrive twice.
    """
    service, (before, project), decision = caller.service, caller.action(str(action_id)), nonce()

    def due(conn: Connection) -> Done:
        return Done(202, _again(conn, before.id).run_id, {"Retry-After": "1"}, then=service.ring_actions)

    def work(conn: Connection) -> Done:
        if not decisions.retry_action(conn, before.id, decision=decision):
            found = _again(conn, before.id)
            raise _conflict(found, found.not_retried)
        return due(conn)

    def read_back(conn: Connection) -> Done | None:
        return due(conn) if decisions.decided(conn, before.id, decision=decision) else None

    show = _shown_to(caller, before.id)
    return once(caller, request, project=project, payload=None, work=work, show=show, read_back=read_back)


@doors.door(
    "POST",
    "/v1/actions/{action_id:uuid}:resolve",
    scope=Scope.RUNS_WRITE,
    quota="change",
    takes_json=True,
    problems=_KEYED,
    answers={200: {"model": ActionOut | ActionBrief, "description": "The action as it ended."}},
    tags=["actions"],
)
def resolve_action(action_id: UUID, body: Resolved, request: Request, caller: Asker) -> Response:
    """Record what became of an unknown action: it arrived as `upstream_id`, or never arrived. Nothing is sent."""
    (before, project), decision, by = caller.action(str(action_id)), nonce(), caller.name

    def resolved(conn: Connection) -> Done:
        return Done(200, _again(conn, before.id).run_id)

    def work(conn: Connection) -> Done:
        if not decisions.resolve_action(conn, before.id, upstream_id=body.upstream_id, by=by, decision=decision):
            found = _again(conn, before.id)
            raise _conflict(found, found.not_resolved)
        return resolved(conn)

    def read_back(conn: Connection) -> Done | None:
        return resolved(conn) if decisions.decided(conn, before.id, decision=decision) else None

    payload, show = body.model_dump(), _shown_to(caller, before.id)
    return once(caller, request, project=project, payload=payload, work=work, show=show, read_back=read_back)


def _shown_to(caller: Caller, action_id: str) -> Show:
    """How an action is shown: whole, or to whoever may not read its id and its state."""

    def show(conn: Connection, _run_id: str) -> tuple[Any, dict[str, str]]:
        found = _again(conn, action_id)
        return found.as_json() if caller.reads else {"id": found.id, "state": str(found.state)}, {}

    return show


def _again(conn: Connection, action_id: str) -> ActionView:
    if (found := decisions.action(conn, action_id)) is None:
        raise no_action(action_id)
    return found


def _conflict(found: ActionView, why: str) -> Problem:
    return Problem("state-conflict", why, more={"state": found.state})
