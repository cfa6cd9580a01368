"""Runs in every state, each made by the verbs themselves, on the caller's connection."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runclaim.keys import RunKey, fingerprint, nonce, run_key, uuid7
from runclaim.ledger import read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.claim import ClaimRequest, claim
from runclaim.ledger.complete import complete
from runclaim.ledger.completion import Completion, Moved, NextPhase
from runclaim.ledger.dispatch import Due, dispatch
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import Failure, Verdict, fail
from runclaim.ledger.new_run import NewRun
from runclaim.ledger.signal import Signaled, signal

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.ledger.actions.plan import NewAction
    from runclaim.ledger.body.findings import NewFinding
    from runclaim.ledger.fence import Claim

FLOW = "review"
PHASES = ("plan", "deliver", "compound")
WORKER = "node:1"
LEASE = timedelta(seconds=60)
MAX_DURATION = timedelta(hours=1)
DISPATCH_AFTER = timedelta(seconds=30)
SPACING = timedelta(seconds=30)
NOTHING = timedelta(0)
SIGNAL = "approved"
MAX_ATTEMPTS = 3

_numbers = itertools.count(1)


def new_run(key: str | RunKey | None = None, **what: Any) -> NewRun:
    """A run nobody has enqueued yet; `what` overrides any field of `NewRun`."""
    identity = key if isinstance(key, RunKey) else run_key([key or f"key-{next(_numbers)}"])
    fields = {
        "run_id": uuid7(),
        "project": "default",
        "flow": FLOW,
        "key": identity,
        "subject": None,
        "input": {"key": identity.text},
        "phases": PHASES,
        "queue": None,
        "max_attempts": MAX_ATTEMPTS,
        "max_losses": 3,
        "priority": 0,
        "delay": NOTHING,
        "dispatch_after": DISPATCH_AFTER,
        "keep_key": timedelta(days=90),
    } | what
    return NewRun(**{"fingerprint": fingerprint(fields["input"])} | fields)


def queued_run(conn: Connection, key: str | None = None, **what: Any) -> str:
    """The id of a run in the ledger that nobody has claimed."""
    return enqueue(conn, [new_run(key, **what)])[0].run_id


def queued_runs(conn: Connection, count: int, **what: Any) -> list[str]:
    return [found.run_id for found in enqueue(conn, [new_run(**what) for _ in range(count)])]


def wanted(conn: Connection, run_id: str) -> ClaimRequest:
    """What a message that is up to date asks for."""
    found = read.standing(conn, run_id)
    assert found is not None
    return ClaimRequest(run_id, found.fence, nonce())


def take_all(conn: Connection, asked: list[ClaimRequest], **how: Any) -> list[Claim]:
    """`claim` with everything defaulted."""
    settings = {
        "flow": FLOW,
        "phase": PHASES[0],
        "worker": WORKER,
        "lease": LEASE,
        "max_duration": MAX_DURATION,
    } | how
    return claim(conn, asked, **settings)


def take(conn: Connection, asked: ClaimRequest, **how: Any) -> Claim | None:
    """Claim one run; `None` when it is not ours to take."""
    found = take_all(conn, [asked], **how)
    return found[0] if found else None


def claim_again(conn: Connection, run_id: str, **how: Any) -> Claim:
    """The claim of a worker that has heard of the run as it stands."""
    found = read.run(conn, run_id)
    assert found is not None
    taken = take(conn, wanted(conn, run_id), **{"phase": found.phase} | how)
    assert taken is not None
    return taken


def claimed_run(conn: Connection, key: str | None = None, *, how: dict[str, Any] | None = None, **what: Any) -> Claim:
    """A run whose first phase somebody holds."""
    return claim_again(conn, queued_run(conn, key, **what), **how or {})


def claimed_runs(conn: Connection, count: int) -> list[Claim]:
    return take_all(conn, [wanted(conn, run_id) for run_id in queued_runs(conn, count)])


def next_phase(claim: Claim, *, inline: bool = True, **how: Any) -> NextPhase | None:
    if claim.is_last:
        return None
    fields = {
        "phase": claim.phases[claim.cursor + 1],
        "queue": None,
        "max_attempts": MAX_ATTEMPTS,
        "max_losses": 3,
        "lease": LEASE,
        "max_duration": MAX_DURATION,
        "owner": nonce() if inline else None,
        "dispatch_after": DISPATCH_AFTER,
    } | how
    return NextPhase(**fields)


def completion(
    claim: Claim,
    result: str = '"done"',
    *,
    inline: bool = True,
    skipped: str | None = None,
    findings: tuple[NewFinding, ...] = (),
    actions: tuple[NewAction, ...] = (),
    **how: Any,
) -> Completion:
    """A phase that ended well and goes on inline, or through the broker."""
    ran, following = timedelta(seconds=2), next_phase(claim, inline=inline, **how)
    return Completion(claim, result, WORKER, ran, following, skipped, findings, actions)


def finish(conn: Connection, claim: Claim, **how: Any) -> Moved | None:
    """Complete one phase; `None` when its claim was lost."""
    return complete(conn, [completion(claim, **how)]).get(claim.run_id)


def due(
    conn: Connection,
    *,
    flows: tuple[str, ...] = (FLOW,),
    phases: tuple[str, ...] = PHASES,
    spacing: timedelta = SPACING,
    limit: int = 500,
) -> list[Due]:
    """`dispatch` with everything defaulted."""
    pairs = [(flow, phase) for flow in flows for phase in phases]
    return dispatch(conn, phases=pairs, spacing=spacing, limit=limit)


def failure(claim: Claim, verdict: Verdict = Verdict.RETRY, *, delay: timedelta = NOTHING) -> Failure:
    return Failure(claim, {"type": "ValueError", "message": "no"}, verdict, delay, WORKER)


def failed_run(conn: Connection, key: str | None = None, **what: Any) -> Claim:
    """The claim whose failure ended the run."""
    taken = claimed_run(conn, key, **what)
    fail(conn, [failure(taken, Verdict.FAIL)])
    return taken


def blocked_run(conn: Connection, key: str | None = None, **what: Any) -> Claim:
    taken = claimed_run(conn, key, **what)
    fail(conn, [failure(taken, Verdict.BLOCK)])
    return taken


def waiting_run(conn: Connection, key: str | None = None, **what: Any) -> str:
    """A run whose first phase waits for the signal `approved`."""
    return queued_run(conn, key, **{"waits_for": SIGNAL} | what)


def waiting_between(conn: Connection, key: str | None = None, **what: Any) -> str:
    """A run whose first phase is complete and whose second waits for the signal `approved`."""
    taken = claimed_run(conn, key, **what)
    finish(conn, taken, waits_for=SIGNAL)
    return taken.run_id


def send(
    conn: Connection, run_id: str, name: str = SIGNAL, *, signal_id: str = "1", payload: str = "null", **how: Any
) -> Signaled:
    """`signal` with everything defaulted."""
    return signal(conn, run_id, name, signal_id=signal_id, payload=payload, **how)


def succeeded_run(conn: Connection, key: str | None = None, **what: Any) -> str:
    taken = claimed_run(conn, key, phases=("plan",), **what)
    finish(conn, taken)
    return taken.run_id


def canceled_run(conn: Connection, key: str | None = None, **what: Any) -> str:
    run_id = queued_run(conn, key, **what)
    cancel(conn, [run_id])
    return run_id


def superseded_run(conn: Connection, subject: str = "pr-1") -> str:
    run_id = queued_run(conn, subject=subject)
    queued_run(conn, subject=subject)
    return run_id
