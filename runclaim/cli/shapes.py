"""Events as JSON, in the form of a run's (`runclaim.ledger.listing`): text for ids and instants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runclaim.ledger.listing import instant

if TYPE_CHECKING:
    from runclaim.cli.service import Json
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
