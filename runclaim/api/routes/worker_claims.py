"""What the worker routes do in the ledger: take a phase, and settle it once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from runclaim.api.problems import Problem
from runclaim.errors import ClaimLost
from runclaim.events import EventType
from runclaim.flows.body.output_ref import check_output_ref
from runclaim.flows.declare.description import identity_of
from runclaim.flows.messages.message import of_claim
from runclaim.keys import dump_json, fingerprint, nonce
from runclaim.ledger import read
from runclaim.ledger.claim import ClaimRequest, claim, claimed
from runclaim.ledger.complete import complete
from runclaim.ledger.completion import Completion
from runclaim.ledger.doors.idempotency_keys import KeptAnswer, find, keep
from runclaim.ledger.doors.outside_workers import Lease, held_claim, lease_of, ready, recorded_by
from runclaim.ledger.fail import Failure, Verdict, fail
from runclaim.ledger.fence import Claim
from runclaim.ledger.read import RunLine
from runclaim.service.flows import known_flow
from runclaim.sql.clock import rfc3339
from runclaim.states import RunState
from runclaim.tracebacks import reported_error_data

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.api.auth import Caller
    from runclaim.api.requests import FailedAttempt, Succeeded, WorkRequest
    from runclaim.flows.client.run_source import RunSource
    from runclaim.flows.declare.description import FlowDescription, PhaseDescription


@dataclass(frozen=True, slots=True)
class Job:
    """A claimed phase, as its worker is told of it."""

    claim: Claim
    #: What its idempotency key is made of.
    identity: str
    results: dict[str, Any]
    lease: timedelta
    ends: Lease

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        taken = self.claim
        return {
            "id": taken.run_id,
            "claim": f"{taken.fence}.{taken.owner}",
            "project": taken.project,
            "flow": taken.flow,
            "phase": taken.phase,
            "attempt": taken.attempt,
            "max_attempts": taken.max_attempts,
            "key": taken.key,
            "subject": taken.subject,
            "input": taken.input,
            "results": self.results,
            "idempotency_key": f"{self.identity}:{taken.phase}",
            "lease_seconds": self.lease.total_seconds(),
            "lease_expires_at": rfc3339(self.ends.expires_at),
            "deadline_at": rfc3339(self.ends.deadline_at),
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """What a claim has recorded; `then` is done once, after the commit."""

    run_id: str
    phase: str
    attempt: int
    recorded: str
    then: Callable[[], None] = lambda: None

    def as_json(self) -> dict[str, Any]:
        """As JSON; the same however often it is asked."""
        return {"id": self.run_id, "phase": self.phase, "attempt": self.attempt, "recorded": self.recorded}


Settling = tuple[Callable[["Connection"], Ended], Callable[["Connection"], Ended | None]]


def take(caller: Caller, request: WorkRequest) -> Job | None:
    """Claim the run that has waited longest at one of these phases, or `None`. Raises: Problem."""
    server, project, owner = caller.server, caller.project(request.project), nonce()
    flow = known_flow(server.access, request.flow, project)
    description = flow.description
    known = {phase.name: phase for phase in description.phases if phase.name in request.phases}
    if missing := sorted(set(request.phases) - set(known)):
        raise Problem("unknown-flow", f"flow {description.name} has no phase {missing[0]}")
    tried: list[ClaimRequest] = []

    def work(conn: Connection) -> Job | None:
        found = ready(conn, project=project, flow=description.name, phases=list(known))
        if found is None:
            return None
        phase = known[found.phase]
        tried.append(ClaimRequest(found.run_id, found.fence, owner))
        taken = claim(
            conn,
            tried[-1:],
            flow=description.name,
            phase=phase.name,
            worker=f"http:{request.worker}",
            lease=phase.lease,
            max_duration=phase.max_duration,
            waits_for=phase.on,
            max_attempts=phase.max_attempts,
            max_losses=phase.max_losses,
        )
        return _job(conn, taken[0], flow, phase) if taken else None

    def read_back(conn: Connection) -> Job | None:
        taken = claimed(conn, tried)
        return _job(conn, taken[0], flow, known[taken[0].phase]) if taken else None

    if server.ask(lambda conn: ready(conn, project=project, flow=description.name, phases=list(known))) is None:
        # Polling for work writes nothing while there is none.
        return None
    return server.database.run(work, read_back=read_back)


def _job(conn: Connection, taken: Claim, flow: RunSource, phase: PhaseDescription) -> Job | None:
    ends = lease_of(conn, taken.run_id)
    if ends is None:
        return None
    identity = identity_of(taken, fail_open=flow.description.fail_open, key=lambda: flow.inputs.key_of(taken))
    return Job(taken, identity, read.results(conn, taken.run_id), phase.lease, ends)


def begin_success(caller: Caller, line: RunLine, fence: int, owner: str, said: Succeeded) -> Settling:
    """How a result is recorded, and read back. Raises: InputError."""
    server = caller.server
    description = known_flow(server.access, line.flow, line.project).description
    text = dump_json("result", said.result)
    output_ref = None if said.output_ref is None else check_output_ref(said.output_ref)

    def work(conn: Connection) -> Ended:
        taken = _held(conn, line, fence, owner)
        # A worker outside takes one phase at a time; any worker that knows the next one claims it.
        next_phase = description.next_phase(taken)
        worker, ran = _worked(conn, description, taken)
        hooks = tuple(description.hooks_of_completion(taken))
        completion = Completion(taken, text, worker, ran, next_phase, actions=hooks, output_ref=output_ref)
        moved = complete(conn, [completion]).get(line.id)
        if moved is None:
            raise ClaimLost(line.id, taken.phase, fence)

        def ring() -> None:
            if moved.state is RunState.QUEUED:
                flow = server.access.flows.get(line.flow)
                due = of_claim(claim=taken, flow=flow, fence=moved.fence, next_phase=next_phase)
                server.access.publisher.publish([due])

        return Ended(line.id, taken.phase, taken.attempt, "succeeded", ring)

    def read_back(conn: Connection) -> Ended | None:
        found = recorded_by(conn, line.id, fence=fence, owner=owner)
        if found is None:
            return None
        if fingerprint([found.result, found.output_ref]) != fingerprint([said.result, said.output_ref]):
            raise Problem(
                "result-conflict", f"this claim has already recorded a different result for phase {found.phase}"
            )
        return Ended(line.id, found.phase, found.attempt, "succeeded")

    return work, read_back


def begin_failure(caller: Caller, line: RunLine, fence: int, owner: str, said: FailedAttempt) -> Settling:
    """How an attempt without a result is settled, and read back."""
    description = known_flow(caller.server.access, line.flow, line.project).description
    error = reported_error_data(said.error.type, said.error.message, said.error.traceback)
    place = fingerprint(["fail", line.id, fence, owner])
    what = fingerprint([error, said.verdict, said.retry_after_seconds])

    def work(conn: Connection) -> Ended:
        taken = _held(conn, line, fence, owner)
        wanted = None if said.retry_after_seconds is None else timedelta(seconds=said.retry_after_seconds)
        delay = description.delay_after(taken, wanted=wanted)
        ended = Failure(taken, error, Verdict(said.verdict), delay, _worked(conn, description, taken)[0])
        if line.id not in fail(conn, [ended], hooks=description.hooks_of_stop):
            raise ClaimLost(line.id, taken.phase, fence)
        keep(conn, place, KeptAnswer(what, line.id, 200, {}, line.project))
        return Ended(line.id, taken.phase, taken.attempt, "failed")

    def read_back(conn: Connection) -> Ended | None:
        if (before := find(conn, place)) is None:
            return None
        if before.fingerprint != what:
            raise Problem("result-conflict", "this claim has already ended with a different error or verdict")
        # The fence rises by one at each transition, so only this claim can have made that one.
        for event in read.journal(conn, line.id):
            if event.fence == fence + 1 and event.type == EventType.PHASE_FAILED:
                return Ended(line.id, event.phase or "", event.attempt or 0, "failed")
        return None

    return work, read_back


def _held(conn: Connection, line: RunLine, fence: int, owner: str) -> Claim:
    found = held_claim(conn, line.id, fence=fence, owner=owner)
    if found is None:
        raise ClaimLost(line.id, line.phase, fence)
    return found


def _worked(conn: Connection, description: FlowDescription, taken: Claim) -> tuple[str, timedelta]:
    """Who holds the claim, and for how long by now."""
    lease = lease_of(conn, taken.run_id)
    phase = description.phase(taken.phase)
    if lease is None or phase is None:
        return "http", timedelta(0)
    began = lease.deadline_at - phase.max_duration
    return lease.worker, max(timedelta(0), lease.now - began)
