"""The publisher of a process that reaches no broker: beat finds what is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from runclaim.ledger.dispatch import Due


class NoBroker:
    """A `Publisher` that publishes nothing."""

    def publish(self, due: Collection[Due]) -> int:  # noqa: ARG002 - a Publisher
        """Nothing goes."""
        return 0

    def publish_soon(self, due: Collection[Due]) -> None:
        """Nothing goes."""

    def ring_actions(self, many: int) -> None:
        """Nothing goes."""
