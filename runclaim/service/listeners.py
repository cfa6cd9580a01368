"""Listeners: who is told of events, and what was given up for them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from runclaim.ledger.listeners import untold
from runclaim.service.errors import ListenerNotFound

if TYPE_CHECKING:
    from runclaim.flows.client.access import LedgerAccess


def listeners(access: LedgerAccess) -> list[dict[str, Any]]:
    """Who is told of events, by their names, as JSON."""
    return [asdict(each) for each in access.ask(untold.listener_views)]


def tell_again(access: LedgerAccess, name: str) -> int:
    """Have what was given up for a listener told again; how many events. Raises: ListenerNotFound."""
    if all(each["name"] != name for each in listeners(access)):
        raise ListenerNotFound(name)
    return access.database.run(lambda conn: untold.tell_again(conn, name))
