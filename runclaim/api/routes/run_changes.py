"""What is asked of a run that exists. Asked, not done: the answer is 202 and the run as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from fastapi import Request, Response

from runclaim.api.auth import Caller, no_run
from runclaim.api.idempotency import Done, once
from runclaim.api.requests import Ids
from runclaim.api.responses import RunBrief, RunOut, RunsChanged
from runclaim.api.routes.runs import LOCATION, brief, shown_to
from runclaim.api.routing import Asker, Doors
from runclaim.errors import StateConflict
from runclaim.flows.messages.message import of_view
from runclaim.keys import nonce
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel, canceled
from runclaim.ledger.doors.run_pages import RunLine, run_line
from runclaim.ledger.doors.tokens import Scope
from runclaim.ledger.journal import entries_of
from runclaim.ledger.rerun import reran, rerun
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.ledger.run_keys import recorded_fingerprint
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy import Connection

    from runclaim.ledger.new_run import NewRun

doors: Final = Doors()
_KEYED: Final = ("state-conflict", "request-in-flight", "idempotency-key-reused", "run-purged")
_LATER: Final = {"Retry-After": "1"}
_ASKED: Final[dict[int | str, dict[str, Any]]] = {
    202: {
        "model": RunOut | RunBrief,
        "description": "The request is recorded; the body shows the run, `Retry-After` says when to look again.",
    }
}


@doors.door(
    "POST",
    "/v1/runs/{run_id:uuid}:cancel",
    scope=Scope.RUNS_WRITE,
    quota="change",
    problems=_KEYED,
    answers=_ASKED,
    tags=["runs"],
)
def cancel_run(run_id: UUID, request: Request, caller: Asker) -> Response:
    """Cancel a run, or ask its worker to stop if it is running. Repeating the request is harmless."""
    line, call = caller.run(str(run_id)), nonce()

    def work(conn: Connection) -> Done:
        if not cancel(conn, [line.id], by=caller.name, call=call):
            _require_canceled(_again(conn, line.id))
        return Done(202, line.id, _LATER)

    def read_back(conn: Connection) -> Done | None:
        return Done(202, line.id, _LATER) if canceled(conn, [line.id], call=call) else None

    show = shown_to(caller)
    return once(caller, request, project=line.project, payload=None, work=work, show=show, read_back=read_back)


@doors.door(
    "POST",
    "/v1/runs:cancel",
    scope=Scope.RUNS_WRITE,
    quota="change",
    takes_json=True,
    problems=_KEYED,
    answers={202: {"model": RunsChanged, "description": "The request is recorded for all of these runs."}},
    tags=["runs"],
)
def cancel_runs(body: Ids, request: Request, caller: Asker) -> Response:
    """Cancel up to 100 runs, all or none: if one of them is not yours or has ended otherwise, none is canceled."""
    lines = [caller.run(run_id) for run_id in dict.fromkeys(each.lower() for each in body.ids)]
    ids, call = [line.id for line in lines], nonce()

    def asked(conn: Connection, moved: Collection[str]) -> Done:
        for line in lines:
            if line.id not in moved:
                _require_canceled(_again(conn, line.id))
        return Done(202, lines[0].id, _LATER)

    def work(conn: Connection) -> Done:
        return asked(conn, cancel(conn, ids, by=caller.name, call=call))

    def read_back(conn: Connection) -> Done | None:
        moved = canceled(conn, ids, call=call)
        return asked(conn, moved) if moved else None

    def show(conn: Connection, _run_id: str) -> tuple[Any, dict[str, str]]:
        after = [_again(conn, run_id) for run_id in ids]
        return {"runs": [line.as_json() if caller.reads else brief(line) for line in after]}, {}

    project, payload = lines[0].project, body.model_dump()
    return once(caller, request, project=project, payload=payload, work=work, show=show, read_back=read_back)


@doors.door(
    "POST",
    "/v1/runs/{run_id:uuid}:retry",
    scope=Scope.RUNS_WRITE,
    quota="change",
    problems=_KEYED,
    answers=_ASKED,
    tags=["runs"],
)
def retry_run(run_id: UUID, request: Request, caller: Asker) -> Response:
    """Restart a failed run at its failed phase, with a fresh budget of attempts."""
    return _move(caller, request, str(run_id), "retry", retry, RunState.FAILED)


@doors.door(
    "POST",
    "/v1/runs/{run_id:uuid}:resume",
    scope=Scope.RUNS_WRITE,
    quota="change",
    problems=_KEYED,
    answers=_ASKED,
    tags=["runs"],
)
def resume_run(run_id: UUID, request: Request, caller: Asker) -> Response:
    """Resume a blocked run at its blocked phase."""
    return _move(caller, request, str(run_id), "resume", resume, RunState.BLOCKED)


@doors.door(
    "POST",
    "/v1/runs/{run_id:uuid}:rerun",
    scope=Scope.RUNS_WRITE,
    quota="enqueue",
    problems=["request-in-flight", "idempotency-key-reused", "unknown-flow", "invalid", "run-purged"],
    answers={201: {"model": RunOut | RunBrief, "description": "The new run.", "headers": LOCATION}},
    tags=["runs"],
)
def rerun_run(run_id: UUID, request: Request, caller: Asker) -> Response:
    """Enqueue a new run with the key and input of an existing one, which is superseded if it has not ended."""
    line, service = caller.run(str(run_id)), caller.service
    service.room.require("live-runs", line.project)
    new = _rerun_of(caller, line)

    def made() -> Done:
        return Done(201, new.run_id, {"Location": new.run_id}, then=lambda: service.ring_new(new, is_first=False))

    def work(conn: Connection) -> Done:
        rerun(conn, [new], by=caller.name)
        return made()

    def read_back(conn: Connection) -> Done | None:
        return made() if reran(conn, [new]) else None

    show = shown_to(caller)
    return once(caller, request, project=line.project, payload=None, work=work, show=show, read_back=read_back)


def _rerun_of(caller: Caller, line: RunLine) -> NewRun:
    service = caller.service
    view = service.ask(lambda conn: read.run(conn, line.id))
    if view is None:
        raise no_run(line.id)

    def fingerprint_of(key: tuple[str, str]) -> str | None:
        return service.ask(lambda conn: recorded_fingerprint(conn, *key))

    return service.flow(line.flow).rerun_of(view, fingerprint_of)


def _move(
    caller: Caller, request: Request, run_id: str, verb: str, move: Callable[..., bool], source: RunState
) -> Response:
    service, line, call = caller.service, caller.run(run_id), nonce()

    def work(conn: Connection) -> Done:
        if not move(conn, run_id, by=caller.name, call=call):
            now = _again(conn, run_id)
            newer = f"its {'subject' if now.subject else 'key'} has a newer run"
            why = newer if now.state is source else f"only a {source} run can be"
            raise StateConflict(run_id, verb, now.state, why)
        return moved(conn)

    def moved(conn: Connection) -> Done:
        if (view := read.run(conn, run_id)) is None:
            raise no_run(run_id)
        due = of_view(view=view, flow=service.declared(view.flow))
        return Done(202, run_id, _LATER, then=lambda: service.ring(due))

    def read_back(conn: Connection) -> Done | None:
        return moved(conn) if entries_of(conn, [run_id], call=call) else None

    show = shown_to(caller)
    return once(caller, request, project=line.project, payload=None, work=work, show=show, read_back=read_back)


def _again(conn: Connection, run_id: str) -> RunLine:
    found = run_line(conn, run_id)
    if found is None:
        raise no_run(run_id)
    return found


def _require_canceled(line: RunLine) -> None:
    if line.state is not RunState.CANCELED and not line.cancel_requested:
        raise StateConflict(line.id, "cancel", line.state)
