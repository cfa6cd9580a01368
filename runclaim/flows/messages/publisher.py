"""
From the ledger to the broker: a message is a doorbell that names a run and the fence it was sent at.

Losing, doubling, delaying or reordering messages loses and doubles nothing; what is not published, or seems
lost, is dispatched from the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from runclaim import failpoints
from runclaim.flows.messages.payload import load_all
from runclaim.ledger.dispatch import Due, dispatch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import timedelta

    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow

_BATCH: Final = 500
#: A message names at most so many runs.
MOST_NAMED: Final = 100


class Publisher(Protocol):
    """What can ring: the broker, or a test's list."""

    def publish(self, due: Collection[Due]) -> int:
        """Send messages that name them all; returns how many runs went. Never raises for a silent broker."""
        ...

    def publish_soon(self, due: Collection[Due]) -> None:
        """As `publish`, at once or very soon: what is enqueued in one moment shares messages."""
        ...

    def ring_actions(self, many: int) -> None:
        """Say that so many actions are to be sent. Never raises for a broker that does not answer."""
        ...


def together(due: Collection[Due], *, may_share: Callable[[Due], bool]) -> list[list[Due]]:
    """The messages that name `due`: runs of one phase and one queue share one, in their order; some stay alone."""
    found: list[list[Due]] = []
    open_: dict[tuple[str, str, str | None, int | None], list[Due]] = {}
    for each in due:
        kind = (each.flow, each.phase, each.queue, each.priority)
        company = open_.get(kind)
        if company is not None and len(company) < MOST_NAMED and may_share(each):
            company.append(each)
            continue
        found.append([each])
        if may_share(each):
            open_[kind] = found[-1]
    return found


def dispatch_due(
    database: Database,
    publisher: Publisher,
    *,
    flows: Mapping[str, DeclaredFlow[Any]],
    spacing: timedelta,
    most: int = 10_000,
) -> int:
    """
    Publish what is due of `flows`, in batches, each stamped in the ledger first; stops when the broker does not answer.

    Returns: how many runs went.
    """
    phases = [(flow.name, phase) for flow in flows.values() for phase in flow.phases]
    sent = 0
    while sent < most:
        due = database.run(lambda conn: dispatch(conn, phases=phases, spacing=spacing, limit=_BATCH))
        failpoints.hit("dispatch.after_commit")
        went = publisher.publish(load_all(database, flows, due))
        sent += went
        if len(due) < _BATCH or went < len(due):
            break
    return sent
