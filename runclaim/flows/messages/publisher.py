"""
From the ledger to the broker: a message is a doorbell that names a run and the fence it was sent at.

Losing, doubling, delaying or reordering messages loses and doubles nothing; what is not published, or seems
lost, is dispatched from the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runclaim.ledger.dispatch import Due

#: The most runs that a message names.
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
        """Have this many actions sent. Never raises for a broker that does not answer."""
        ...


def together(due: Collection[Due], *, may_share: Callable[[Due], bool]) -> list[list[Due]]:
    """The messages that name `due`: runs of one phase and one queue share one, in their order; some stay alone."""
    messages: list[list[Due]] = []
    open_: dict[tuple[str, str, str | None, int | None], list[Due]] = {}
    for each in due:
        kind = (each.flow, each.phase, each.queue, each.priority)
        company = open_.get(kind)
        if company is not None and len(company) < MOST_NAMED and may_share(each):
            company.append(each)
            continue
        messages.append([each])
        if may_share(each):
            open_[kind] = messages[-1]
    return messages
