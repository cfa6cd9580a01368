"""Where a run goes once a phase of it is complete."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runclaim.ledger.completion import NextPhase

if TYPE_CHECKING:
    from runclaim.config import Config
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.ledger.fence import Claim


def next_phase(flow: DeclaredFlow[Any], taken: Claim, *, config: Config, owner: str | None) -> NextPhase | None:
    """The phase after a claim's, `None` for the last; with `owner` it is claimed by the completion."""
    if taken.is_last:
        return None
    name = taken.phases[taken.cursor + 1]
    after = flow.phases.get(name)
    if after is None:
        nothing = timedelta(0)
        # Enqueued by another release; a worker that knows the phase takes it, and its first claim fixes the budgets.
        return NextPhase(name, None, 1, 1, nothing, nothing, None, nothing)
    return NextPhase(
        phase=name,
        queue=after.options.queue,
        max_attempts=after.options.max_attempts,
        max_losses=after.max_losses,
        lease=after.options.lease or config.lease,
        max_duration=after.options.max_duration or config.max_duration,
        owner=owner,
        dispatch_after=config.dispatch_after,
        waits_for=after.options.on,
    )
