"""fail: an attempt ended without a result. Its run is queued again, blocked, failed, or canceled if asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Double, Text, case, null, or_, update

from runclaim.codec import seal
from runclaim.events import EventType
from runclaim.ledger.actions.plan import Hooks, Stopped, add_actions_once
from runclaim.ledger.fence import UNHELD, held, locked, proofs, state
from runclaim.ledger.journal import Entry, append, who_canceled
from runclaim.models import runs
from runclaim.sql.clock import now, shifted
from runclaim.sql.rowset import as_json, pack
from runclaim.states import TERMINAL, RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import timedelta

    from sqlalchemy import Connection

    from runclaim.ledger.fence import Claim


class Verdict(StrEnum):
    """What the body's end asks for; spent attempts and a requested cancel overrule `retry`."""

    RETRY = "retry"
    FAIL = "fail"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that raised: its claim, what it raised as JSON, what is asked for, and the worker it ran in."""

    claim: Claim
    error: dict[str, Any]
    verdict: Verdict
    delay: timedelta
    worker: str


_ended: Final = proofs("ended", verdict=Text(), error=Text(), delay_seconds=Double())
_failed: Final = locked(_ended, held(_ended))
_canceled: Final = runs.c.cancel_requested_at.is_not(None)
_blocked: Final = _failed.c.verdict == Verdict.BLOCK.value
_spent: Final = or_(_failed.c.verdict == Verdict.FAIL.value, runs.c.attempts >= runs.c.max_attempts)
_FAIL: Final = (
    update(runs)
    .where(held(_failed))
    .values(
        state=case(
            (_canceled, state(RunState.CANCELED)),
            (_blocked, state(RunState.BLOCKED)),
            (_spent, state(RunState.FAILED)),
            else_=state(RunState.QUEUED),
        ),
        fence=runs.c.fence + 1,
        **UNHELD,
        error=as_json(_failed.c.error),
        available_at=shifted(now(), _failed.c.delay_seconds),
        dispatch_due_at=shifted(now(), _failed.c.delay_seconds),
        dispatches=0,
        finished_at=case((_canceled, now()), (_blocked, null()), (_spent, now()), else_=null()),
    )
    .returning(runs.c.id, runs.c.state, runs.c.fence)
)
_STOPS: Final = frozenset({RunState.BLOCKED, RunState.FAILED})
_ENDS: Final = {
    RunState.CANCELED: EventType.RUN_CANCELED,
    RunState.BLOCKED: EventType.RUN_BLOCKED,
    RunState.FAILED: EventType.RUN_FAILED,
}


def fail(conn: Connection, failures: Collection[Failure], *, hooks: Hooks = lambda _stopped: ()) -> dict[str, RunState]:
    """
    End each attempt whose claim is still current; `hooks` tells what to plan for a run that stops here.

    Returns: run id → the run's state now. A run that is missing lost its claim. The caller owns the transaction.
    """
    by_run = {each.claim.run_id: each for each in failures}
    errors = {run_id: seal(each.error) for run_id, each in by_run.items()}
    rows = [
        each.claim.proof()
        | {
            "verdict": each.verdict,
            "error": json.dumps(errors[each.claim.run_id]),
            "delay_seconds": each.delay.total_seconds(),
        }
        for each in failures
    ]
    found = [(run_id, RunState(after), fence) for run_id, after, fence in conn.execute(_FAIL, {"ended": pack(rows)})]
    canceled_by = who_canceled(conn, [run_id for run_id, after, _ in found if after is RunState.CANCELED])

    def entries() -> Iterator[Entry]:
        for run_id, after, fence in found:
            said = {"worker": by_run[run_id].worker}
            if after is RunState.CANCELED:
                said = {"by": canceled_by.get(run_id, "")} | said
            yield from _entries(by_run[run_id], after, fence, said, errors[run_id])

    append(conn, entries())
    stopped = [_stopped(by_run[run_id], after) for run_id, after, _ in found if after in _STOPS]
    add_actions_once(conn, [hook for each in stopped for hook in hooks(each)])
    return {run_id: after for run_id, after, _ in found}


def _stopped(failure: Failure, after: RunState) -> Stopped:
    claim = failure.claim
    return Stopped(claim.run_id, claim.flow, claim.key, claim.phase, after, failure.error)


def _entries(
    failure: Failure, after: RunState, fence: int, said: dict[str, str], error: dict[str, Any]
) -> Iterator[Entry]:
    claim = failure.claim
    yield Entry(claim.run_id, EventType.PHASE_FAILED, fence, claim.phase, claim.attempt, error)
    if after in TERMINAL or after is RunState.BLOCKED:
        yield Entry(claim.run_id, _ENDS[after], fence, claim.phase, data=said)
