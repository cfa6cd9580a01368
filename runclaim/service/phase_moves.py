"""Moving a phase in all live runs that are pinned to it, in transactions of at most a hundred runs."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import InputError
from runclaim.flows.client.move_phase import MovePhase
from runclaim.ledger.doors.pinned_runs import PhaseMove, movable, standing
from runclaim.service.flows import known_flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.description import PhaseDescription
    from runclaim.states import RunState

#: The most runs of one transaction, and of one call.
MOST: Final = 100


def phase_move(
    project: str, *, flow: str, old: str, new: str, key: str | None = None, run_ids: Sequence[str] = ()
) -> PhaseMove:
    """What a door asks for. Raises: InputError for the same name twice, for too many runs, for ids and a key."""
    if old == new:
        raise InputError("to", f"is the phase itself, {new}")
    if key is not None and run_ids:
        raise InputError("key", "give either a key or the ids of runs")
    if len(run_ids) > MOST:
        raise InputError("ids", f"names {len(run_ids)} runs; give at most {MOST}")
    return PhaseMove(project=project, flow=flow, old=old, new=new, key=key, run_ids=tuple(run_ids))


def moves_json(access: LedgerAccess, move: PhaseMove, *, by: str, dry_run: bool = False) -> dict[str, Any]:
    """
    Move the phase of at most `MOST` runs, the oldest first; with `dry_run` of none.

    Returns: the runs that were moved, each with its state, and how many are left of which kind; while `movable` is not
    zero, ask again. Raises: InputError, UnknownFlow.
    """
    target = _target(access, move)
    done = {} if dry_run else _move_some(access, move, target, by)
    left = access.ask(partial(standing, move=move))
    return {"runs": [{"id": run_id, "state": str(state)} for run_id, state in done.items()]} | asdict(left)


def _move_some(access: LedgerAccess, move: PhaseMove, target: PhaseDescription, by: str) -> dict[str, RunState]:
    done: dict[str, RunState] = {}
    after = None
    while len(done) < MOST:
        page, after = access.ask(partial(movable, move=move, after=after, limit=MOST))
        if wanted := page[: MOST - len(done)]:
            moved = access.do(MovePhase(move, target, wanted, by)).run_ids
            done |= {each.run_id: each.state for each in wanted if each.run_id in moved}
        if after is None:
            break
    return done


def _target(access: LedgerAccess, move: PhaseMove) -> PhaseDescription:
    """The phase that the runs go on with. Raises: InputError unless the flow declares it, UnknownFlow."""
    flow = known_flow(access, move.flow, move.project).description
    target = flow.phase(move.new)
    if target is None:
        raise InputError("to", f"{move.new:.100} is not a phase of flow {move.flow}: {', '.join(flow.phase_names)}")
    return target
