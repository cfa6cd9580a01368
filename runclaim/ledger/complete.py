"""
complete: a phase's result is recorded once, and its run moves on.

The user's rows come before (same transaction), the CAS on the run's row last but for what hangs on it: the
result, the findings, the actions and the journal. The next phase is claimed by the same statement unless it has
to go through the broker, or waits for a signal that the run has not received.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Integer, Text, and_, case, func, null, select, update

from runclaim.ledger.actions.plan import add_actions
from runclaim.ledger.body.findings import add_findings
from runclaim.ledger.completion import Completion, Moved, entries, possible_entries
from runclaim.ledger.fence import PROOF, held, locked, proofs, stands_in, state
from runclaim.ledger.journal import append, beside, packed_entries, who_canceled
from runclaim.ledger.received_signals import waits
from runclaim.ledger.results import RESULT, record, result_row, results_of
from runclaim.models import phase_results, runs
from runclaim.sql.clock import earlier, now, shifted
from runclaim.sql.prepared import Prepared
from runclaim.sql.rowset import pack
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import CTE, Connection
    from sqlalchemy.sql.dml import ReturningUpdate


_ended: Final = proofs(
    "ended",
    **RESULT,
    next_phase=Text(),
    next_queue=Text(),
    next_waits_for=Text(),
    next_max_attempts=Integer(),
    next_max_losses=Integer(),
    next_owner=Text(),
    lease_seconds=Double(),
    duration_seconds=Double(),
    dispatch_seconds=Double(),
    planned_actions=Integer(),
    entries=Text(),
)
#: Where a run goes; its row is locked, so this is so until the end of the transaction.
_goes: Final = case(
    (_ended.c.next_phase.is_(None), state(RunState.SUCCEEDED)),
    (runs.c.cancel_requested_at.is_not(None), state(RunState.CANCELED)),
    (waits(_ended.c.next_waits_for), state(RunState.WAITING)),
    (_ended.c.next_owner.is_not(None), state(RunState.RUNNING)),
    else_=state(RunState.QUEUED),
)


def _update(done: CTE) -> ReturningUpdate[Any]:
    ends = done.c.goes == state(RunState.SUCCEEDED)
    canceled, inline = done.c.goes == state(RunState.CANCELED), done.c.goes == state(RunState.RUNNING)
    deadline = shifted(now(), done.c.duration_seconds)
    return (
        update(runs)
        .where(held(done), runs.c.cursor == done.c.position)
        .values(
            cursor=runs.c.cursor + 1,
            fence=runs.c.fence + 1,
            state=done.c.goes,
            phase=case((ends, runs.c.phase), else_=done.c.next_phase),
            queue=case((ends, runs.c.queue), else_=done.c.next_queue),
            waits_for=done.c.next_waits_for,
            owner=case((inline, done.c.next_owner), else_=null()),
            worker=case((inline, runs.c.worker), else_=null()),
            lease_expires_at=case((inline, earlier(shifted(now(), done.c.lease_seconds), deadline)), else_=null()),
            deadline_at=case((inline, deadline), else_=null()),
            attempts=case((inline, 1), (ends, runs.c.attempts), else_=0),
            max_attempts=case((ends, runs.c.max_attempts), else_=done.c.next_max_attempts),
            losses=0,
            max_losses=case((ends, runs.c.max_losses), else_=done.c.next_max_losses),
            available_at=now(),
            dispatch_due_at=shifted(now(), done.c.dispatch_seconds),
            dispatches=0,
            pending_actions=runs.c.pending_actions + done.c.planned_actions,
            error=null(),
            output_ref=func.coalesce(done.c.output_ref, runs.c.output_ref),
            claimed_at=case((inline, now()), else_=runs.c.claimed_at),
            finished_at=case((ends, now()), (canceled, now()), else_=null()),
        )
        .returning(runs.c.id, runs.c.state, runs.c.fence.label("fence_now"))
    )


def _update_at_once(done: CTE) -> Prepared:
    # PostgreSQL writes the result and the journal in the same statement.
    moved = _update(done).returning(*(done.c[name] for name in [*PROOF, *RESULT, "entries"])).cte("moved")
    return Prepared(
        select(moved.c.id, moved.c.state, moved.c.fence_now)
        .add_cte(results_of(moved).cte("recorded"))
        .add_cte(beside(moved, run_id=moved.c.id, state=moved.c.state).cte("journal"))
    )


_done: Final = [locked(_ended, held(_ended), _goes.label("goes"), pass_over=each) for each in (False, True)]
_COMPLETE: Final = _update(_done[False])
_COMPLETE_AT_ONCE: Final = [_update_at_once(done) for done in _done]
_asked: Final = proofs("asked", phase=Text(), next_owner=Text())
_READ_BACK: Final = (
    select(
        runs.c.id,
        runs.c.state,
        runs.c.fence,
        and_(stands_in(RunState.RUNNING), runs.c.owner == _asked.c.next_owner),
    )
    .join_from(runs, _asked, runs.c.id == _asked.c.run_id)
    .join(
        phase_results,
        and_(
            phase_results.c.run_id == _asked.c.run_id,
            phase_results.c.phase == _asked.c.phase,
            phase_results.c.fence == _asked.c.fence,
            phase_results.c.owner == _asked.c.owner,
        ),
    )
)


def complete(conn: Connection, completions: Collection[Completion], *, pass_over: bool = False) -> dict[str, Moved]:
    """
    Record each completion whose claim is still current, and move its run on.

    Returns: run id → what happened. A run that is missing lost its claim, or with `pass_over` has a row that another
    transaction holds: roll back what you wrote for it. The caller owns the transaction.
    """
    by_run, rows = {each.claim.run_id: each for each in completions}, [_done_row(each) for each in completions]
    if at_once := conn.dialect.name == "postgresql":
        for row, each in zip(rows, completions, strict=True):
            row["entries"] = packed_entries(possible_entries(each))
        found: Iterable[Any] = _COMPLETE_AT_ONCE[pass_over].execute(conn, {"ended": rows})
    else:
        found = conn.execute(_COMPLETE, {"ended": pack(rows)})
    moved = {
        run_id: _moved(by_run[run_id], RunState(after), fence, inline=after == RunState.RUNNING)
        for run_id, after, fence in found
    }
    if moved:
        recorded = [by_run[run_id] for run_id in moved]
        if not at_once:
            record(conn, recorded)
            by = who_canceled(conn, [each.run_id for each in moved.values() if each.state is RunState.CANCELED])
            append(conn, (entry for each in recorded for entry in entries(each, moved[each.claim.run_id].state, by)))
        add_findings(conn, [found for each in recorded for found in each.findings])
        add_actions(conn, [planned for each in recorded for planned in each.actions])
    return moved


def completed(conn: Connection, completions: Collection[Completion]) -> dict[str, Moved]:
    """Read back: those of `completions` that the ledger shows as recorded by their very claims."""
    by_run = {each.claim.run_id: each for each in completions}
    rows = [
        each.claim.proof() | {"phase": each.claim.phase, "next_owner": each.next.owner if each.next else None}
        for each in completions
    ]
    found = conn.execute(_READ_BACK, {"asked": pack(rows)})
    return {
        run_id: _moved(by_run[run_id], RunState(after), fence, inline=bool(ours))
        for run_id, after, fence, ours in found
    }


def _done_row(completion: Completion) -> dict[str, Any]:
    following = completion.next
    row = result_row(completion) | {"dispatch_seconds": 0.0, "planned_actions": len(completion.actions)}
    if following is not None:
        row |= {
            "next_phase": following.phase,
            "next_queue": following.queue,
            "next_waits_for": following.waits_for,
            "next_max_attempts": following.max_attempts,
            "next_max_losses": following.max_losses,
            "next_owner": following.owner,
            "lease_seconds": following.lease.total_seconds(),
            "duration_seconds": following.max_duration.total_seconds(),
            "dispatch_seconds": following.dispatch_after.total_seconds(),
        }
    return row


def _moved(completion: Completion, after: RunState, fence: int, *, inline: bool) -> Moved:
    following, claim = completion.next, completion.claim
    taken = None
    if inline and following is not None and following.owner is not None:
        taken = replace(
            claim,
            fence=claim.fence + 1,
            owner=following.owner,
            cursor=claim.cursor + 1,
            phase=following.phase,
            queue=following.queue,
            attempt=1,
            max_attempts=following.max_attempts,
        )
    return Moved(claim.run_id, after, fence, taken)
