"""
A delivery of a flow that fails open: as of any flow, and without the ledger where that gives no answer.

The only error that opens that way is a first claim without an answer. An answer, whatever it is, is never overridden.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from runclaim import logs
from runclaim.errors import LedgerUnavailable, RunExists
from runclaim.flows.fail_open.attempt import OpenAttempt
from runclaim.flows.fail_open.carried_run import claim_of, run_of
from runclaim.flows.fail_open.enqueue import unstarted_record
from runclaim.flows.fail_open.local_records import LocalRecord, LocalRecords, Outcome
from runclaim.flows.fail_open.reconcile import Reconciler, name_of_ledger, reconcile_quietly
from runclaim.flows.messages.message import of_message
from runclaim.flows.run.body import Body
from runclaim.flows.run.ending import COMPLETE
from runclaim.flows.run.execution import Execution, Unanswered
from runclaim.keys import nonce
from runclaim.ledger import read
from runclaim.ledger.recover import recover
from runclaim.states import RunState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.messages.message import Message
    from runclaim.flows.run.body import Watcher
    from runclaim.flows.run.ending import Ended
    from runclaim.flows.run.execution import Inline
    from runclaim.flows.run.runner import Runner

logger: Final = logs.logger("runclaim.fail_open")


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliverer:
    """Does what messages of such flows ask for. `runner` is created for each; that may find the ledger away."""

    runner: Callable[[], Runner]
    ledger: LedgerAccess
    records: LocalRecords
    worker: str
    stopping: Callable[[], bool]

    def deliver(
        self, flow: DeclaredFlow[Any], phase: Phase[Any, Any], message: Message, *, inline: Inline, watcher: Watcher
    ) -> Execution:
        """
        Run the phase that a message names; returns its first attempt.

        Raises: LedgerUnavailable when the ledger cannot be reached and the run waits for it.
        """
        if message.is_only_trace:
            self._write_down(phase, message)
        try:
            return self._runner(flow, message).deliver(flow, phase, message, inline=inline, watcher=watcher)
        except Unanswered as away:
            if message.carried is None:
                raise
            return self._run_open(flow, phase, message, message.carried, away=away, watcher=watcher)

    def _write_down(self, phase: Phase[Any, Any], message: Message) -> None:
        """Before anything waits: the broker has forgotten the message, and no other process may have the run."""
        record = unstarted_record(self.ledger, of_message(message=message, phase=phase), worker=self.worker)
        try:
            self.records.add(record)
        except OSError as full:
            logger.warning(
                "run %s exists only in its message: no local record can be written (%s)", message.run_id, full
            )

    def _runner(self, flow: DeclaredFlow[Any], message: Message) -> Runner:
        """
        The runner, once the ledger has what it missed: a result of this run, or the run itself.

        Raises: Unanswered when the ledger is away before anything is claimed.
        """
        try:
            runner = self.runner()
            reconcile_quietly(Reconciler(self.ledger, self.records), message.run_id)
            if message.carried is not None and message.is_only_trace:
                self._insert(flow, message.run_id, message.carried)
        except LedgerUnavailable as away:
            raise Unanswered(str(away), nonce()) from away
        return runner

    def _insert(self, flow: DeclaredFlow[Any], run_id: str, carried: dict[str, Any]) -> None:
        database, mine = self.ledger.database, nonce()
        if database.ask(lambda conn: read.standing(conn, run_id)) is not None:
            return
        new = run_of(self.ledger, flow, run_id, carried)

        def work(conn: Connection) -> None:
            recover(conn, new, nonce=mine)

        try:
            database.run(work)
        except RunExists as there:
            # The key's own run continues; what this message wanted is being done, or was.
            logger.info("%s", there)

    def _run_open(
        self,
        flow: DeclaredFlow[Any],
        phase: Phase[Any, Any],
        message: Message,
        carried: dict[str, Any],
        *,
        away: Unanswered,
        watcher: Watcher,
    ) -> Execution:
        """The attempt without a claim, once and where a local record of it can be written. Raises: `away`."""
        before = self.records.read(message.run_id)
        if before is not None and before.fence + (before.outcome is not None) > message.fence:
            logger.info("run %s has already run %s without the ledger", message.run_id, before.phase)
            return Execution(None, None)
        record = LocalRecord(
            ledger=name_of_ledger(self.ledger.config.database_url),
            flow=flow.name,
            run_id=message.run_id,
            phase=phase.name,
            fence=message.fence,
            owner=away.owner,
            worker=self.worker,
            carried=carried,
            opened=1 if before is None else before.opened + 1,
        )
        self._begin(record, phase, message, away)
        return self._perform(record, flow, watcher)

    def _begin(self, record: LocalRecord, phase: Phase[Any, Any], message: Message, away: Unanswered) -> None:
        try:
            self.records.write(record)
        except OSError as full:
            logger.error(  # noqa: TRY400 - its text is enough
                "no local record can be written in %s (%s); the run waits", self.records.folder, full
            )
            self._put_back(phase, message)
            raise away from full
        logger.warning("%s runs without the ledger: %s", phase.task_name, away)

    def _put_back(self, phase: Phase[Any, Any], message: Message) -> None:
        """No ledger and no disk has the run: the broker gets its message again."""
        if message.is_only_trace and not self.ledger.publisher.publish([of_message(message=message, phase=phase)]):
            logger.error("run %s could not be returned to the broker either", message.run_id)

    def _perform(self, record: LocalRecord, flow: DeclaredFlow[Any], watcher: Watcher) -> Execution:
        claim = claim_of(flow, record)
        watcher.started(claim)

        def write_outcome(_body: Body, ended: Ended, *, at_once: bool) -> Execution:  # noqa: ARG001 - it always is
            if ended.ending in COMPLETE:
                self.records.write(replace(record, outcome=_outcome(ended)))
            else:
                logger.warning("%s/%s ended %s; the run waits for the ledger", flow.name, claim.phase, ended.ending)
            watcher.ended(claim, ended, RunState.QUEUED)
            return Execution(claim, ended, RunState.QUEUED)

        body = Body(claim, OpenAttempt(claim, flow=flow, stopping=self.stopping), write_outcome)
        watcher.perform(body)
        return body.execution or Execution(claim, body.ended)


def _outcome(ended: Ended) -> Outcome:
    return Outcome(
        result=ended.result,
        skipped=ended.skipped,
        ran_seconds=ended.ran.total_seconds(),
        findings=[asdict(each) for each in ended.findings],
        actions=[asdict(each) for each in ended.actions],
        output_ref=ended.output_ref,
    )
