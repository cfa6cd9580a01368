"""Webhooks in: the signature replaces the token. Only an API that was started with an application has them."""

from __future__ import annotations

from typing import Final

from fastapi import Path
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from runclaim.api.bodies import StrictRequest
from runclaim.api.problems import Problem
from runclaim.api.responses import ReceivedOut
from runclaim.api.routing import Routes, server_of
from runclaim.flows.inbound.webhook import DeliveryOutcome

routes: Final = Routes()
_NEW: Final = frozenset({DeliveryOutcome.ENQUEUED, DeliveryOutcome.STARTED})


@routes.declare(
    "POST",
    "/v1/webhooks/{trigger}",
    scope=None,
    problems=["signature-refused", "key-conflict", "too-large", "request-timeout", "invalid", "busy"],
    answers={
        200: {
            "model": ReceivedOut,
            "description": "Nothing changed: the delivery was a duplicate, or concerns no run.",
        },
        202: {"model": ReceivedOut, "description": "The delivery started a new run, or a phase of one."},
    },
    tags=["webhooks"],
)
async def receive(request: StrictRequest, trigger: str = Path(max_length=100)) -> JSONResponse:
    """Receive one signed delivery (GitHub or Standard Webhooks, as the application declares the trigger)."""
    server = server_of(request)
    webhook = server.runs.webhooks.get(trigger) if server.runs is not None else None
    if webhook is None:
        raise Problem("not-found", "there is no webhook with this name")
    # Read only now: a stranger who knows no trigger's name sends nothing that is kept.
    body = await request.body_up_to(webhook.max_body_bytes)
    received = await run_in_threadpool(webhook.receive, body, request.headers)
    run_id = None if received.run is None else received.run.id
    shown = {"outcome": str(received.outcome), "run_id": run_id}
    return JSONResponse(shown, status_code=202 if received.outcome in _NEW else 200)
