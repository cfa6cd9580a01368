"""
outside_workers: what a worker outside Celery asks of the ledger, in addition to the verbs that every worker uses.

It has no message that names a run, so it looks for one; it holds its claim as text, so the claim is read back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, bindparam, select

from runclaim.ledger.claim import ClaimRequest, claimed
from runclaim.ledger.fence import Claim, in_state, is_live_in
from runclaim.models import phase_results, runs
from runclaim.sql.clock import now
from runclaim.sql.rowset import Id, pack, rowset
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Connection

_known: Final = rowset("known", phase=Text())
_READY: Final = (
    select(runs.c.id, runs.c.fence, runs.c.phase)
    .where(
        is_live_in(bindparam("its_project", type_=Text())),
        runs.c.flow == bindparam("its_flow"),
        in_state(RunState.QUEUED),
        runs.c.phase.in_(select(_known.c.phase)),
        runs.c.available_at <= select(now()).scalar_subquery(),
        runs.c.cancel_requested_at.is_(None),
        runs.c.attempts < runs.c.max_attempts,
    )
    .order_by(runs.c.enqueued_at, runs.c.id)
    .limit(1)
    # Workers that ask at once get different runs, and none waits for another.
    .with_for_update(skip_locked=True, key_share=True)
)
_its_id: Final = bindparam("its_id", type_=Id())
_LEASE: Final = select(runs.c.lease_expires_at, runs.c.deadline_at, runs.c.worker, now()).where(
    runs.c.id == _its_id, in_state(RunState.RUNNING)
)
_recorded_columns: Final = (phase_results.c.phase, phase_results.c.result, phase_results.c.attempts)
_RECORDED: Final = select(*_recorded_columns, phase_results.c.output_ref).where(
    phase_results.c.run_id == _its_id,
    phase_results.c.fence == bindparam("its_fence"),
    phase_results.c.owner == bindparam("its_owner"),
)


@dataclass(frozen=True, slots=True)
class Ready:
    """A run that could be claimed: its fence as it was seen, and its current phase."""

    run_id: str
    fence: int
    phase: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """A phase that a claim has completed."""

    phase: str
    result: Any
    attempt: int
    output_ref: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a claim is good, whose it is, and the ledger's time now."""

    expires_at: datetime
    deadline_at: datetime
    worker: str
    now: datetime


def ready(conn: Connection, *, project: str, flow: str, phases: Collection[str]) -> Ready | None:
    """The run that has waited longest at one of `phases`, or `None`. Claim it in the same transaction."""
    values = {"its_project": project, "its_flow": flow, "known": pack({"phase": each} for each in phases)}
    row = conn.execute(_READY, values).one_or_none()
    return None if row is None else Ready(*row)


def held_claim(conn: Connection, run_id: str, *, fence: int, owner: str) -> Claim | None:
    """The claim of that fence and owner, or `None` when it is not current."""
    found = [each for each in claimed(conn, [ClaimRequest(run_id, fence - 1, owner)]) if each.fence == fence]
    return found[0] if found else None


def lease_of(conn: Connection, run_id: str) -> Lease | None:
    """The lease of a running run, or `None` when it is not running."""
    row = conn.execute(_LEASE, {"its_id": run_id}).one_or_none()
    return None if row is None else Lease(*row)


def recorded_by(conn: Connection, run_id: str, *, fence: int, owner: str) -> Recorded | None:
    """What the claim of that fence and owner has completed, or `None`."""
    row = conn.execute(_RECORDED, {"its_id": run_id, "its_fence": fence, "its_owner": owner}).one_or_none()
    return None if row is None else Recorded(*row)
