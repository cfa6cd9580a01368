"""
New runs: each way to make them is a change of its own.

A message goes out only after the commit: a worker that hears of a run can read it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from runclaim import failpoints
from runclaim.errors import LedgerUnavailable
from runclaim.flows.messages import message
from runclaim.keys import nonce
from runclaim.ledger.enqueue import Enqueued, enqueue, enqueue_at_once
from runclaim.ledger.recover import recover, recovered
from runclaim.ledger.rerun import reran, rerun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.ledger.new_run import NewRun


@dataclass(frozen=True, slots=True)
class Enqueue:
    """Make runs, or find those that their keys have."""

    wanted: Sequence[NewRun]

    def work(self, conn: Connection) -> list[Enqueued]:
        """As `ledger.enqueue`. Raises: KeyConflict."""
        return enqueue(conn, self.wanted)

    def read_back(self, _conn: Connection) -> None:
        """Nothing: a key's run recognises itself, so it is enqueued once more."""
        return

    def publish(self, access: LedgerAccess, outcome: Sequence[Enqueued]) -> None:
        """Ring for every run that was created and is due now."""
        if access.is_closed:
            # The commit of an application that has closed its access already; dispatch will ring.
            return
        due = [message.first(new=new, flow=access.flows.get(new.flow)) for new in _startable(self.wanted, outcome)]
        access.publisher.publish_soon(due)


@dataclass(frozen=True, slots=True)
class Rerun:
    """Make new runs of keys that may have some, each under its key's next number."""

    wanted: Sequence[NewRun]
    by: str = ""

    def work(self, conn: Connection) -> list[Enqueued]:
        """As `ledger.rerun`. Raises: KeyConflict."""
        return rerun(conn, self.wanted, by=self.by)

    def read_back(self, conn: Connection) -> list[Enqueued] | None:
        """As `ledger.reran`."""
        return reran(conn, self.wanted)

    def publish(self, access: LedgerAccess, outcome: Sequence[Enqueued]) -> None:
        """Ring for every run that was created and is due now; its number is in the ledger only."""
        _publish_recorded(access, self.wanted, outcome)


@dataclass(frozen=True, slots=True)
class Recover:
    """Insert one run under the id that it was given, or nothing."""

    wanted: Sequence[NewRun]
    call: str = field(default_factory=nonce)

    def work(self, conn: Connection) -> list[Enqueued]:
        """As `ledger.recover`. Raises: RunExists."""
        (new,) = self.wanted
        return [recover(conn, new, nonce=self.call)]

    def read_back(self, conn: Connection) -> list[Enqueued] | None:
        """As `ledger.recovered`."""
        (new,) = self.wanted
        found = recovered(conn, new, nonce=self.call)
        return None if found is None else [found]

    def publish(self, access: LedgerAccess, outcome: Sequence[Enqueued]) -> None:
        """Ring for the run, if it is due now."""
        _publish_recorded(access, self.wanted, outcome)


NewRuns: TypeAlias = Enqueue | Rerun | Recover


def make_runs(access: LedgerAccess, change: NewRuns) -> list[Enqueued]:
    """
    Make the runs in a transaction of their own, then publish what was created.

    Runs of a flow that fails open go to the broker without the ledger, should that be away.
    """

    def work(conn: Connection) -> list[Enqueued]:
        enqueued = change.work(conn)
        failpoints.hit("enqueue.before_commit")
        return enqueued

    try:
        enqueued = _at_once(access, change) or access.database.run(work, read_back=change.read_back)
    except LedgerUnavailable as away:
        if access.fallback is None or not isinstance(change, Enqueue) or not _fail_open(access, change.wanted):
            raise
        return access.fallback(change.wanted, away)
    failpoints.hit("enqueue.after_commit")
    change.publish(access, enqueued)
    return enqueued


def _fail_open(access: LedgerAccess, wanted: Sequence[NewRun]) -> bool:
    """Whether all of these runs may be made without the ledger."""
    flows = [access.flows.get(new.flow) for new in wanted]
    return all(flow is not None and flow.fail_open for flow in flows)


def _at_once(access: LedgerAccess, change: NewRuns) -> list[Enqueued] | None:
    """The run in one round trip, where that can be; `None` when it was not made, or by a first try in doubt."""
    if not isinstance(change, Enqueue) or len(change.wanted) != 1:
        return None
    (run,) = change.wanted
    if run.subject is not None or access.database.url.get_backend_name() != "postgresql":
        return None

    def work(conn: Connection) -> bool:
        failpoints.hit("enqueue.before_commit")
        return bool(enqueue_at_once(conn, [run]))

    return [Enqueued(run.run_id, created=True)] if access.database.run(work, at_once=True) else None


def _publish_recorded(access: LedgerAccess, wanted: Sequence[NewRun], enqueued: Sequence[Enqueued]) -> None:
    """Ring for runs whose numbers are in the ledger only."""
    if not access.is_closed:
        due = [message.first(new=new, flow=None) for new in _startable(wanted, enqueued)]
        access.publisher.publish_soon(access.with_inputs(due))


def _startable(wanted: Sequence[NewRun], enqueued: Sequence[Enqueued]) -> list[NewRun]:
    """The runs that were created and may start now."""
    return [
        new
        for new, found in zip(wanted, enqueued, strict=True)
        if found.created and not new.delay and new.waits_for is None
    ]
