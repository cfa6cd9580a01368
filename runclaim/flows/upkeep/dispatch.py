"""
Dispatching: what is due in the ledger, or seems lost on its way, is published.

Each batch is stamped before it is published, so a worker that dies between the two delays runs and loses none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runclaim import failpoints
from runclaim.flows.messages.message import with_inputs
from runclaim.ledger.dispatch import dispatch

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.messages.publisher import Publisher

_BATCH: Final = 500


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
        went = publisher.publish(with_inputs(lambda: database, flows=flows, due=due))
        sent += went
        if len(due) < _BATCH or went < len(due):
            break
    return sent
