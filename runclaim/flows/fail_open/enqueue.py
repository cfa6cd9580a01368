"""
An enqueue of a fail-open flow while the ledger is away: to a local record and the broker, under the run's own key.

The run's id is made from its key, so two such enqueues name one run. The first to reach the ledger, this process
with its record or a worker with the message, inserts the run, or finds that its key has one already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from runclaim import logs
from runclaim.errors import LedgerUnavailable
from runclaim.flows.fail_open.local_records import LocalRecord
from runclaim.flows.fail_open.reconcile import name_of_ledger
from runclaim.flows.messages import message
from runclaim.keys import key_id, nonce
from runclaim.ledger.enqueue import Enqueued

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.fail_open.backlog import Backlog
    from runclaim.flows.fail_open.local_records import LocalRecords
    from runclaim.ledger.dispatch import Due
    from runclaim.ledger.new_run import NewRun

logger: Final = logs.logger("runclaim.fail_open")


def enqueue_open(
    ledger: LedgerAccess, backlog: Backlog, wanted: Sequence[NewRun], away: LedgerUnavailable
) -> list[Enqueued]:
    """
    Write the runs down on this machine, and publish them without the ledger; it is not known yet whether they are new.

    Raises: LedgerUnavailable, when a flow does not fail open, an input is too large for a message, a run is delayed, no
    record can be kept, or the broker does not answer either. Some messages may have gone then; enqueueing again names
    the same runs.
    """
    named = [replace(new, run_id=key_id(new.namespace, new.key)) for new in wanted]
    messages = [message.first(new=new, flow=ledger.flows.get(new.flow)) for new in named]
    if any(new.delay for new in wanted) or any(each.carried is None for each in messages):
        raise away
    records = backlog.records
    added = _write_down(records, [unstarted_record(ledger, each) for each in messages], away=away)
    logger.warning("%d runs of %s were sent to the broker without the ledger: %s", len(named), named[0].flow, away)
    if ledger.publisher.publish(messages) < len(messages):
        for record in added:
            records.remove(record)
        raise away
    backlog.watch()
    return [Enqueued(new.run_id, created=False) for new in named]


def unstarted_record(ledger: LedgerAccess, due: Due, *, worker: str = "") -> LocalRecord:
    """The record of a run that is in a message only, and has not been started."""
    return LocalRecord(
        ledger=name_of_ledger(ledger.config.database_url),
        flow=due.flow,
        run_id=due.run_id,
        phase=due.phase,
        fence=due.fence,
        owner=nonce(),
        worker=worker,
        carried=due.carried or {},
        opened=0,
    )


def _write_down(records: LocalRecords, wanted: Sequence[LocalRecord], *, away: LedgerUnavailable) -> list[LocalRecord]:
    """Keep a record of each run that has none; returns those. A broker may forget a message, and a worker may die."""
    try:
        return [record for record in wanted if records.add(record)]
    except OSError as full:
        raise LedgerUnavailable(
            f"{away}; and no local record can be written in {records.folder} ({full}), which failing open needs:"
            " set RUNCLAIM_FAIL_OPEN_FOLDER to a folder that this process may write"
        ) from full
