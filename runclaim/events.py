"""
The names of what happens to a run, as the ledger's journal records them.

One row an event, written in the transition's own transaction. The names are part of the public
interface: a new one may come, an old one keeps its meaning.
"""

from __future__ import annotations

from enum import StrEnum


class EventType(StrEnum):
    """What happened. `run.*` concerns the run as a whole, `phase.*` its current phase."""

    RUN_ENQUEUED = "run.enqueued"
    RUN_STARTED = "run.started"
    RUN_SUCCEEDED = "run.succeeded"
    RUN_FAILED = "run.failed"
    RUN_BLOCKED = "run.blocked"
    RUN_CANCEL_REQUESTED = "run.cancel_requested"
    RUN_CANCELED = "run.canceled"
    RUN_SUPERSEDED = "run.superseded"
    RUN_RETRIED = "run.retried"
    RUN_RESUMED = "run.resumed"
    RUN_SIGNALED = "run.signaled"
    RUN_ERASED = "run.erased"
    RUN_PHASE_MOVED = "run.phase_moved"
    PHASE_STARTED = "phase.started"
    PHASE_COMPLETED = "phase.completed"
    PHASE_SKIPPED = "phase.skipped"
    PHASE_FAILED = "phase.failed"
    PHASE_RELEASED = "phase.released"
    PHASE_RESCUED = "phase.rescued"
