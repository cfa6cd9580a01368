"""Events and actions as JSON, in the form of a run's (`runclaim.ledger.listing`): text for ids and instants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.ledger.listing import instant

if TYPE_CHECKING:
    from runclaim.cli.service import Json
    from runclaim.ledger.decisions import ActionView
    from runclaim.ledger.read import EventView


def event_json(event: EventView) -> Json:
    """One line of a run's journal; a traceback is for whoever reads the ledger."""
    data = event.data
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name != "traceback"}
    return {
        "id": event.id,
        "type": event.type,
        "phase": event.phase,
        "attempt": event.attempt,
        "data": data,
        "at": instant(event.at),
    }


def action_json(action: ActionView) -> Json:
    """An action as its users see it."""
    error = action.error and {"type": action.error.get("type"), "message": action.error.get("message")}
    return {
        "id": action.id,
        "run_id": action.run_id,
        "phase": action.phase,
        "name": action.name,
        "kind": action.kind,
        "state": action.state,
        "attempts": action.attempts,
        "uncertain": action.uncertain,
        "superseded": action.superseded,
        "payload": action.payload,
        "idempotency_key": action.idempotency_key,
        "upstream_id": action.upstream_id,
        "error": error or None,
        "planned_at": instant(action.planned_at),
        "attempted_at": instant(action.attempted_at),
        "ended_at": instant(action.ended_at),
    }
