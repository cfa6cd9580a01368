"""
A delivery: one message, and what is done for it; the way round the ledger for flows that fail open.

The only error that opens that way is a first claim without an answer. An answer, whatever it is, is never overridden.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from runclaim import logs
from runclaim.errors import LedgerUnavailable, RunExists
from runclaim.flows.fail_open.attempt import OpenAttempt
from runclaim.flows.fail_open.enqueue import heard
from runclaim.flows.fail_open.local_records import LocalRecord, LocalRecords, Outcome
from runclaim.flows.fail_open.reconcile import Reconciler, claim_of, name_of_ledger, reconcile_quietly, run_of
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
    """Does what messages ask for. `runner` is made anew for each; making it may find the ledger away."""

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
        if not flow.fail_open:
            return self.runner().deliver(flow, phase, message, inline=inline, watcher=watcher)
        try:
            return self._closed(flow, phase, message, inline=inline, watcher=watcher)
        except Unanswered as away:
            if message.carried is None:
                raise
            return self._open(flow, phase, message, message.carried, away=away, watcher=watcher)

    def _closed(
        self, flow: DeclaredFlow[Any], phase: Phase[Any, Any], message: Message, *, inline: Inline, watcher: Watcher
    ) -> Execution:
        """As for any flow, once the ledger has been told what it missed: a result of this run, or the run itself."""
        if message.is_only_trace:
            self._write_down(phase, message)
        try:
            runner = self.runner()
            reconcile_quietly(Reconciler(self.ledger, self.records), message.run_id)
            if message.carried is not None and message.is_only_trace:
                self._insert(flow, message.run_id, message.carried)
        except LedgerUnavailable as away:
            raise Unanswered(str(away), nonce()) from away
        return runner.deliver(flow, phase, message, inline=inline, watcher=watcher)

    def _write_down(self, phase: Phase[Any, Any], message: Message) -> None:
        """Before anything waits: the broker has forgotten the message, and nobody else may have the run."""
        try:
            self.records.add(heard(self.ledger, of_message(message=message, phase=phase), worker=self.worker))
        except OSError as full:
            logger.warning(
                "run %s exists only in its message: no local record can be written (%s)", message.run_id, full
            )

    def _put_back(self, phase: Phase[Any, Any], message: Message) -> None:
        """No ledger and no disk has the run: the broker gets its message again."""
        if message.is_only_trace and not self.ledger.publisher.publish([of_message(message=message, phase=phase)]):
            logger.error("run %s could not be returned to the broker either", message.run_id)

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
            # The key's own run goes on; what this message wanted is being done, or was.
            logger.info("%s", there)

    def _open(
        self,
        flow: DeclaredFlow[Any],
        phase: Phase[Any, Any],
        message: Message,
        carried: dict[str, Any],
        *,
        away: Unanswered,
        watcher: Watcher,
    ) -> Execution:
        known = self.records.read(message.run_id)
        stands = -1 if known is None else known.fence + (known.outcome is not None)
        if known is not None and stands > message.fence:
            logger.info("run %s has already run %s without the ledger", message.run_id, known.phase)
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
            opened=1 if known is None else known.opened + 1,
        )
        try:
            self.records.write(record)
        except OSError as full:
            logger.error("no local record can be written in %s (%s); the run waits", self.records.folder, full)  # noqa: TRY400
            self._put_back(phase, message)
            raise away from full
        logger.warning("%s/%s runs without the ledger: %s", flow.name, phase.name, away)
        claim = claim_of(flow, record)
        watcher.started(claim)

        def keep(_body: Body, ended: Ended, *, at_once: bool) -> Execution:  # noqa: ARG001 - it always is
            if ended.ending in COMPLETE:
                self._keep(record, ended)
            else:
                logger.warning("%s/%s ended %s; the run waits for the ledger", flow.name, phase.name, ended.ending)
            watcher.ended(claim, ended, RunState.QUEUED)
            return Execution(claim, ended, RunState.QUEUED)

        body = Body(claim, OpenAttempt(claim, flow=flow, stopping=self.stopping), keep)
        watcher.perform(body)
        return body.execution or Execution(claim, body.ended)

    def _keep(self, record: LocalRecord, ended: Ended) -> None:
        outcome = Outcome(
            result=ended.result,
            skipped=ended.skipped,
            ran_seconds=ended.ran.total_seconds(),
            findings=[asdict(each) for each in ended.findings],
            actions=[asdict(each) for each in ended.actions],
        )
        self.records.write(replace(record, outcome=outcome))
