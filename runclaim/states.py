"""
The states of a run and every legal move between them.

`MOVES` is the only table: the CHECK constraint lists its states, the lifecycle page draws it, and the
tests hold every transition that the ledger ever writes against it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


class RunState(StrEnum):
    """The state of a run. Terminal states absorb; `failed` is left only by a retry."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    BLOCKED = "blocked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    SUPERSEDED = "superseded"


class PhaseStatus(StrEnum):
    """The status of a phase of a run, derived from the run's cursor and state."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETE = "complete"
    FAILED = "failed"
    BLOCKED = "blocked"


_Q, _R, _W, _B = RunState.QUEUED, RunState.RUNNING, RunState.WAITING, RunState.BLOCKED
_S, _F, _C, _O = RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED, RunState.SUPERSEDED

#: verb -> the moves it may make. A verb that is not here moves nothing.
MOVES: Final[dict[str, frozenset[tuple[RunState, RunState]]]] = {
    "claim": frozenset({(_Q, _R)}),
    "complete": frozenset({(_R, _R), (_R, _Q), (_R, _W), (_R, _S), (_R, _C)}),
    "fail": frozenset({(_R, _Q), (_R, _F), (_R, _B), (_R, _C)}),
    "release": frozenset({(_R, _Q), (_R, _C)}),
    "rescue": frozenset({(_R, _Q), (_R, _F), (_R, _C)}),
    "cancel": frozenset({(_Q, _C), (_W, _C), (_B, _C), (_R, _R)}),
    "supersede": frozenset({(_Q, _O), (_R, _O), (_W, _O), (_B, _O)}),
    "signal": frozenset({(_W, _Q)}),
    "resume": frozenset({(_B, _Q)}),
    "retry": frozenset({(_F, _Q)}),
}

TERMINAL: Final = frozenset({_S, _F, _C, _O})
LIVE: Final = frozenset(RunState) - TERMINAL


def phase_status(state: RunState, cursor: int, position: int) -> PhaseStatus:
    """The status of the phase at `position` in a run whose first `cursor` phases are complete."""
    if position < cursor:
        return PhaseStatus.COMPLETE
    if position > cursor:
        return PhaseStatus.PENDING
    return {_R: PhaseStatus.ACTIVE, _F: PhaseStatus.FAILED, _B: PhaseStatus.BLOCKED}.get(state, PhaseStatus.PENDING)


def phase_statuses(state: RunState, cursor: int, phases: Iterable[str]) -> dict[str, PhaseStatus]:
    """Phase → status, for the phases of a run in their order."""
    return {phase: phase_status(state, cursor, position) for position, phase in enumerate(phases)}
