"""
From the ledger to the broker: a message is a doorbell that names a run and the fence it was sent at.

Losing, doubling, delaying or reordering messages loses and doubles nothing; what is not published, or seems
lost, is dispatched from the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from runclaim import failpoints
from runclaim.flows.carrying import load_all
from runclaim.ledger.dispatch import Due, dispatch

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import timedelta

    from runclaim.database import Database
    from runclaim.flows.flow import Flow

_BATCH: Final = 500


class Publisher(Protocol):
    """What can ring: the broker, or a test's list."""

    def publish(self, due: Collection[Due]) -> int:
        """Send one message for each; returns how many went. Never raises for a broker that does not answer."""
        ...

    def ring_actions(self, many: int) -> None:
        """Say that so many actions are to be sent. Never raises for a broker that does not answer."""
        ...


def dispatch_due(
    database: Database,
    publisher: Publisher,
    *,
    flows: Mapping[str, Flow[Any]],
    spacing: timedelta,
    most: int = 10_000,
) -> int:
    """
    Publish what is due of `flows`, in batches, each stamped in the ledger first; stops when the broker does not answer.

    Returns: how many messages went.
    """
    sent = 0
    while sent < most:
        due = database.run(lambda conn: dispatch(conn, flows=list(flows), spacing=spacing, limit=_BATCH))
        failpoints.hit("dispatch.after_commit")
        went = publisher.publish(load_all(database, flows, due))
        sent += went
        if len(due) < _BATCH or went < len(due):
            break
    return sent
