"""
Reconciling: what was done without the ledger is recorded in it, under a claim like any other, or is dropped.

A run that the ledger does not have is inserted; a result is recorded if the run is still where its message said.
If the run has moved on without it, the ledger is right and the record is not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from runclaim import logs
from runclaim.errors import InputError, LedgerRefused, LedgerUnavailable, RunExists
from runclaim.flows.declare.phase import PhaseOptions
from runclaim.flows.fail_open.carried_run import claim_of, run_of
from runclaim.flows.messages import message
from runclaim.ledger import counters, read
from runclaim.ledger.actions.plan import NewAction
from runclaim.ledger.body.findings import NewFinding
from runclaim.ledger.claim import ClaimRequest, claim, claimed
from runclaim.ledger.complete import complete, completed
from runclaim.ledger.completion import Completion, Moved
from runclaim.ledger.recover import recover
from runclaim.states import RunState
from runclaim.urls import parsed, schema_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.database import Database
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.fail_open.local_records import LocalRecord, LocalRecords, Outcome
    from runclaim.ledger.fence import Claim

logger: Final = logs.logger("runclaim.fail_open")

#: Errors of the record itself: its flow, or what its release took for a finding or an action, was changed under it.
_MISFITS: Final = (InputError, TypeError, ValueError, LookupError, IntegrityError, DataError)


class Fate(Enum):
    """What became of a record."""

    COMPLETED = auto()  #: its result is in the ledger
    WAITS = auto()  #: it has no result; its run is in the ledger and starts again under a claim
    REFUSED = auto()  #: somebody else has gone on with the run, or has its key


@dataclass(frozen=True, slots=True)
class _Answer:
    fate: Fate
    moved: Moved | None = None
    completion: Completion | None = None
    #: It was recorded before, by a process that died before it could forget the record.
    is_repeated: bool = False


def name_of_ledger(database_url: str) -> str:
    """What tells one ledger's records from another's in one folder; a new password makes no new ledger."""
    url = parsed(database_url)
    where = str(Path(url.database or "").absolute()) if url.get_backend_name() == "sqlite" else url.database
    schema = schema_of(url)
    address = f"{url.get_backend_name()}://{url.host}:{url.port}/{where}{f'?{schema}' if schema else ''}"
    return hashlib.sha256(address.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Records in the ledger what the local records hold."""

    ledger: LedgerAccess
    records: LocalRecords
    #: Seconds that each record may wait for the ledger.
    patience: float = 1.0

    def reconcile_all(self) -> int:
        """Reconcile what is there; returns how many records went. Raises: LedgerUnavailable."""
        return sum(self.reconcile(record) is not None for record in self.records.all())

    def reconcile(self, record: LocalRecord) -> Fate | None:
        """
        Reconcile one record and forget it.

        Returns: what became of it, or `None` when it stays: it is of another ledger or application, or no longer
        fits its flow. Raises: LedgerUnavailable.
        """
        flow = self.ledger.flows.get(record.flow)
        if flow is None or record.ledger != name_of_ledger(self.ledger.config.database_url):
            return None
        database = self.ledger.database
        try:
            answer = self._record_fate(database, flow, record)
        except _MISFITS:
            # Tried again it would fail again, every few seconds.
            aside = self.records.set_aside(record)
            logger.exception("run %s: its local record does not match the ledger and stays in %s", record.run_id, aside)
            return None
        self.records.remove(record)
        if answer.fate is Fate.REFUSED and record.outcome is not None:
            dropped = "run %s has moved on since %s ran without the ledger; that result is dropped"
            logger.warning(dropped, record.run_id, record.phase)
        if answer.moved is not None and answer.completion is not None:
            logger.info(
                "run %s: the result of %s, which ran without the ledger, is recorded", record.run_id, record.phase
            )
            self._ring(flow, answer.moved, answer.completion)
        return answer.fate

    def _record_fate(self, database: Database, flow: DeclaredFlow[Any], record: LocalRecord) -> _Answer:
        expected = self._expected(flow, record)

        def count(conn: Connection) -> None:
            counters.add(conn, {("failed_open", flow.name): record.opened})

        def work(conn: Connection) -> _Answer:
            answer = self._settle(conn, flow, record)
            if record.opened and not answer.is_repeated:
                count(conn)
            return answer

        def read_back(conn: Connection) -> _Answer | None:
            return None if expected is None else _recorded(conn, expected)

        try:
            return database.run(work, read_back=read_back, patience=self.patience)
        except RunExists as there:
            if there.found == record.run_id:
                # Another process has just inserted it.
                return self._record_fate(database, flow, record)
            # The key has a run of its own.
            logger.info("%s", there)
            if record.opened:
                database.run(count, patience=self.patience)
            return _Answer(Fate.REFUSED)

    def _settle(self, conn: Connection, flow: DeclaredFlow[Any], record: LocalRecord) -> _Answer:
        if read.standing(conn, record.run_id) is None:
            if record.fence > 0:
                # It was there once and is purged.
                return _Answer(Fate.REFUSED)
            recover(conn, run_of(self.ledger, flow, record.run_id, record.carried), nonce=record.owner)
        if record.outcome is None:
            return _Answer(Fate.WAITS)
        claim = self._claim(conn, flow, record)
        if claim is None:
            expected = self._expected(flow, record)
            return (expected and _recorded(conn, expected)) or _Answer(Fate.REFUSED)
        completion = self._completion(flow, claim, record.outcome, record.worker)
        return _Answer(Fate.COMPLETED, complete(conn, [completion])[record.run_id], completion)

    def _claim(self, conn: Connection, flow: DeclaredFlow[Any], record: LocalRecord) -> Claim | None:
        """The claim that the open attempt would have had, or that it has had without hearing of it."""
        wanted = [ClaimRequest(record.run_id, record.fence, record.owner)]
        config, phase = self.ledger.config, flow.phases.get(record.phase)
        options = PhaseOptions() if phase is None else phase.options
        claims = claimed(conn, wanted) or claim(
            conn,
            wanted,
            flow=flow.name,
            phase=record.phase,
            worker=record.worker,
            lease=options.lease_under(config),
            max_duration=options.max_duration_under(config),
            waits_for=options.on,
        )
        return claims[0] if claims else None

    def _expected(self, flow: DeclaredFlow[Any], record: LocalRecord) -> Completion | None:
        """The completion by which it is read back whether this record has been reconciled already."""
        if record.outcome is None or record.phase not in flow.phases:
            return None
        claim = claim_of(flow, record)
        return self._completion(flow, claim, record.outcome, record.worker)

    def _completion(self, flow: DeclaredFlow[Any], claim: Claim, outcome: Outcome, worker: str) -> Completion:
        description = flow.described(self.ledger.config)
        return Completion(
            claim,
            outcome.result,
            worker,
            timedelta(seconds=outcome.ran_seconds),
            # The next phase is claimed by a worker that gets its message; it is not run here.
            description.next_phase(claim),
            outcome.skipped,
            tuple(NewFinding(**each) for each in outcome.findings),
            (
                *(NewAction(**each) for each in outcome.actions),
                *description.hooks_of_completion(claim),
            ),
            outcome.output_ref,
        )

    def _ring(self, flow: DeclaredFlow[Any], moved: Moved, completion: Completion) -> None:
        claim, after = completion.claim, completion.next
        if moved.state is RunState.QUEUED and after is not None:
            due = message.of_claim(claim=claim, flow=flow, fence=moved.fence, next_phase=after)
            self.ledger.publisher.publish([due])
        self.ledger.publisher.ring_actions(len(completion.actions))


def _recorded(conn: Connection, expected: Completion) -> _Answer | None:
    moved = completed(conn, [expected]).get(expected.claim.run_id)
    return None if moved is None else _Answer(Fate.COMPLETED, replace(moved, claim=None), expected, is_repeated=True)


def reconcile_quietly(reconciler: Reconciler, run_id: str) -> None:
    """Reconcile the record of a run, if there is one; what the ledger does not take now stays."""
    record = reconciler.records.read(run_id)
    if record is not None:
        try:
            reconciler.reconcile(record)
        except LedgerUnavailable as away:
            logger.debug("%s", away)
        except (OSError, DBAPIError, LedgerRefused) as broken:
            # Whether the delivery may continue is decided by its own claim.
            logger.warning("the local record of run %s is kept: %s", run_id, broken)
