"""An event as a CloudEvent 1.0 in JSON (cloudevents.io, structured mode), with the distributed tracing extension."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from runclaim.tracing import HEADERS

if TYPE_CHECKING:
    from runclaim.listeners.listener import Event

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"


def cloudevent(event: Event) -> dict[str, Any]:
    """
    The event with what names its run; no input and no result. `id` is the same however often it is sent.

    `type` is `runclaim.run.failed.v1`: the number goes up if the meaning of `data` ever changes.
    """
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.id,
        "source": f"/runclaim/{event.project}",
        "type": f"runclaim.{event.type}.v1",
        "subject": event.run_id,
        "time": event.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {
            "run": {
                "id": event.run_id,
                "project": event.project,
                "flow": event.flow,
                "key": event.key,
                "subject": event.subject,
            },
            "phase": event.phase,
            "attempt": event.attempt,
            "details": event.data,
        },
    }
    trace = event.trace_context or {}
    return found | {name: trace[name] for name in HEADERS if name in trace}


def body(event: Event) -> bytes:
    """The bytes that are sent and signed."""
    return json.dumps(cloudevent(event), separators=(",", ":"), ensure_ascii=False).encode()
