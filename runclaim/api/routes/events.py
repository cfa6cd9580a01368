"""
Events: a run's journal as it grows, as server-sent events or as one page of JSON.

The id of an event is its number in the journal: a client that comes back says the last one it has seen, and misses
and doubles nothing. No thread and no connection is held between two looks. A stream ends with its token.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import anyio
from anyio.to_thread import run_sync
from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, StreamingResponse

from runclaim.api.problems import Problem
from runclaim.api.responses import EventsOut
from runclaim.api.routing import CurrentCaller, Routes
from runclaim.errors import RunclaimError
from runclaim.ledger.doors.tokens import Scope
from runclaim.pause import Pauses
from runclaim.service.events import event_json, events_after
from runclaim.states import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runclaim.api.auth import Caller
    from runclaim.api.server import Server
    from runclaim.ledger.read import EventView, RunLine

routes: Final = Routes()
#: For proxies that would otherwise hold a stream back until their buffer is full.
_UNBUFFERED: Final = {"X-Accel-Buffering": "no"}
_KEEP_ALIVE_SECONDS: Final = 15.0
_LARGEST: Final = 2**63 - 1
_DIGITS: Final = 19


class After(BaseModel):
    """Where to begin."""

    model_config = ConfigDict(extra="forbid")

    after: int | None = Field(None, ge=0, le=_LARGEST, description="Only events after this id.")
    limit: int = Field(100, ge=1, le=100, description="The most events in a JSON response.")


@routes.declare(
    "GET",
    "/v1/runs/{run_id:uuid}/events",
    scope=Scope.RUNS_READ,
    problems=["busy"],
    answers={
        200: {
            "model": EventsOut,
            "description": "Server-sent events unless `Accept` asks for JSON; the stream ends with the run.",
            "content": {
                "text/event-stream": {
                    "example": 'id: 12\nevent: run.started\ndata: {"id":12,"type":"run.started"}\n\n',
                }
            },
        },
        204: {"description": "The run has ended and you have seen its last event; do not reconnect."},
    },
    tags=["runs"],
)
async def follow(run_id: UUID, query: Annotated[After, Query()], request: Request, caller: CurrentCaller) -> Response:
    """
    The events of a run as they happen, from the first one or from the one after `Last-Event-ID`.

    The stream ends after the last event of a run. With `Accept: application/json` you get the events so far.
    """
    line = await run_sync(caller.run, str(run_id))
    after = _begin(request, query)
    server = caller.server
    if "text/event-stream" not in request.headers.get("accept", "text/event-stream") and _wants_json(request):
        found, _ = await run_sync(_look, server, line.id, after, query.limit)
        last = found[-1].id if found else after
        return JSONResponse({"events": [event_json(each) for each in found], "last_id": last})
    found, is_over = await run_sync(_look, server, line.id, after)
    if is_over and not found:
        return Response(status_code=204)
    server.shares.require_room("streams", caller.token.id, line.project)
    if request.method == "HEAD":
        return Response(media_type="text/event-stream", headers=_UNBUFFERED)
    return StreamingResponse(_stream(caller, line, after), media_type="text/event-stream", headers=_UNBUFFERED)


def _begin(request: Request, query: After) -> int:
    given = request.headers.get("last-event-id", "").strip()
    if not given:
        return query.after or 0
    if not (given.isascii() and given.isdigit() and len(given) <= _DIGITS and int(given) <= _LARGEST):
        raise Problem("bad-request", "Last-Event-ID must be the id of an event")
    return int(given)


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


async def _stream(caller: Caller, line: RunLine, after: int) -> AsyncIterator[bytes]:
    server, run_id, pauses = caller.server, line.id, Pauses(first=0.1, longest=1.0)
    said = checked = time.monotonic()
    with server.shares.held("streams", caller.token.id, line.project):
        yield b"retry: 2000\n\n"
        while True:
            try:
                if time.monotonic() - checked > _KEEP_ALIVE_SECONDS:
                    checked = time.monotonic()
                    if not await run_sync(server.ask, caller.is_still_good):
                        return
                found, is_over = await run_sync(_look, server, run_id, after)
            except RunclaimError:
                # The client comes back by itself, and says where it was.
                return
            for event in found:
                after, said = event.id, time.monotonic()
                pauses.restart()
                yield _written(event)
            if is_over and not found:
                yield b"event: end\ndata: {}\n\n"
                return
            if time.monotonic() - said > _KEEP_ALIVE_SECONDS:
                said = time.monotonic()
                yield b": still here\n\n"
            if not found:
                await anyio.sleep(pauses.next() or 0.0)


def _look(server: Server, run_id: str, after: int, limit: int = 100) -> tuple[Sequence[EventView], bool]:
    """The events after that one, and whether the run had ended when they were read."""
    new = server.ask(partial(events_after, run_id=run_id, after=after, limit=limit))
    return new.events, new.state is None or new.state in TERMINAL


def _written(event: EventView) -> bytes:
    text = json.dumps(event_json(event), separators=(",", ":"))
    return f"id: {event.id}\nevent: {event.type}\ndata: {text}\n\n".encode()
