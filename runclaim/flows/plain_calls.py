"""
Plain calls: a claim without a flow, for code that is not written as phases.

The run of a name and key has one phase, `work`. The caller that gets the claim does the work itself; nothing is
published, and no worker is needed. Everybody else gets `None`, before anything expensive.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from runclaim import logs
from runclaim.errors import ClaimLost, DeclarationError, Skip
from runclaim.flows.client.new_run import Options, new_run
from runclaim.flows.declare.description import FlowDescription
from runclaim.flows.declare.intake import Intake
from runclaim.flows.run.check import Check
from runclaim.flows.run.ending import Ended, Ending, ended_by
from runclaim.flows.run.transactions import Success, give_up, record
from runclaim.keys import check_name, check_text, dump_json, nonce, run_key
from runclaim.ledger.claim import ClaimRequest, claimed
from runclaim.ledger.plain_call import take
from runclaim.secrets import refuse_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.flows.declare.phase import PhaseOptions
    from runclaim.flows.run.lease_keeper import Keeper
    from runclaim.ledger.fence import Claim
    from runclaim.ledger.new_run import NewRun

logger: Final = logs.logger("runclaim.plain")

#: The one phase of a plain run.
WORK: Final = "work"
#: A process that is being ended waits no longer than this for its last word.
_LAST_WORD_SECONDS: Final = 2.0


class Claimed:
    """
    The right to do the work of a key, for the length of a `with` block.

    Leaving the block completes the run; leaving it by an exception ends the attempt, so that a later call may claim
    again after the backoff. Meanwhile the lease is kept.
    """

    def __init__(self, claim: Claim, options: PhaseOptions, lease: timedelta, plain: PlainCalls) -> None:
        self.claim, self.options, self.lease = claim, options, lease
        self._plain = plain
        self._started = time.monotonic()
        self.check = plain.check_of(claim)
        self.is_settled = False

    @property
    def run_id(self) -> str:
        """The run; `runs.get(run_id)` is its handle."""
        return self.claim.run_id

    @property
    def key(self) -> str:
        """The key that was claimed."""
        return self.claim.key

    @property
    def attempt(self) -> int:
        """Which start of the work this is; 1 is the first."""
        return self.claim.attempt

    @property
    def ran(self) -> timedelta:
        """How long it has been in these hands."""
        return timedelta(seconds=time.monotonic() - self._started)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> bool:
        if self.is_settled:
            return False
        if error is None or isinstance(error, Skip):
            self._plain.complete(self, skipped=error)
            return error is not None
        self._plain.give_up(self, error)
        return False

    def __repr__(self) -> str:
        return f"<claim of {self.claim.flow} {self.key}, attempt {self.attempt}>"


@dataclass(frozen=True, slots=True)
class PlainCalls:
    """The plain calls of one application: its ledger, this process's keeper, and whether it shuts down."""

    ledger: LedgerAccess
    keeper: Callable[[], Keeper]
    stopping: Callable[[], bool]

    def check_and_claim(
        self, name: str, key: str, *, subject: str | None, project: str | None, options: PhaseOptions
    ) -> Claimed | None:
        """See `Runclaim.check_and_claim`."""
        if name in self.ledger.flows:
            raise DeclarationError(f"{name} is a declared flow, whose runs are claimed by workers; enqueue it instead")
        database, keeper, config = self.ledger.database, self.keeper(), self.ledger.config
        new = self._new_run(check_name("flow", name), key, subject, project or config.project, options)
        self.ledger.plain_names.add(name)
        lease, max_duration = options.lease_under(config), options.max_duration_under(config)
        owner, asked = nonce(), [new.run_id]

        def work(conn: Connection) -> list[Claim]:
            found = take(conn, new, owner=owner, worker=_worker(), lease=lease, max_duration=max_duration)
            asked[0] = new.run_id if found is None else found.run_id
            return [] if found is None else [found]

        def read_back(conn: Connection) -> list[Claim] | None:
            return claimed(conn, [ClaimRequest(asked[0], 0, owner)]) or None

        found = database.run(work, read_back=read_back)
        if not found:
            keeper.count("duplicates_refused", name)
            return None
        keeper.watch(found[0], lease=lease, max_duration=max_duration)
        return Claimed(found[0], options, lease, self)

    def _new_run(self, name: str, key: str, subject: str | None, project: str, options: PhaseOptions) -> NewRun:
        refuse_secrets("key", key)
        refuse_secrets("subject", subject)
        return new_run(
            self._description(name, options, has_subject=subject is not None),
            Intake({}, run_key([key]), None if subject is None else check_text("subject", subject), compared={}),
            Options(),
            project=check_name("project", project),
        )

    def _description(self, name: str, options: PhaseOptions, *, has_subject: bool) -> FlowDescription:
        """A plain call as a flow of one phase, whose key and subject are given."""
        config = self.ledger.config
        return FlowDescription(
            name=name,
            phases=(options.described(WORK, config),),
            input={},
            key=None,
            subject=None,
            has_subject=has_subject,
            keep_keys=config.keep_keys,
            dispatch_after=config.dispatch_after,
        )

    def check_of(self, claim: Claim) -> Check:
        """What `Claimed.check` calls."""
        return Check(claim, database=self.ledger.database, keeper=self.keeper(), stopping=self.stopping)

    def complete(self, claimed: Claimed, result: Any = None, *, skipped: Skip | None = None) -> None:
        """See `Runclaim.complete`."""
        text = dump_json("result", result)
        ending = Ending.SUCCESS if skipped is None else Ending.SKIPPED
        ended = Ended(ending, claimed.ran, text, exception=skipped)
        patience = claimed.lease.total_seconds()
        claimed.is_settled = True
        try:
            success = Success(claimed.claim, ended, next_phase=None)
            if not record(self.ledger.database, [success], worker=_worker(), patience=patience):
                raise ClaimLost(claimed.claim.run_id, claimed.claim.phase, claimed.claim.fence)
        finally:
            self.keeper().forget(claimed.claim)

    def give_up(self, claimed: Claimed, error: BaseException) -> None:
        """End an attempt that raised; never raises itself, for the error is on its way already."""
        ended = ended_by(error, claim=claimed.claim, backoff=claimed.options.backoff, ran=claimed.ran)
        patience = claimed.lease.total_seconds() if isinstance(error, Exception) else _LAST_WORD_SECONDS
        claimed.is_settled = True
        try:
            self.keeper().forget(claimed.claim)
            give_up(self.ledger.database, claimed.claim, ended, hooks=lambda _: (), worker=_worker(), patience=patience)
        except Exception:
            logger.warning("could not end the attempt of %r; its lease will lapse", claimed, exc_info=True)


def _worker() -> str:
    return f"plain@{platform.node()}:{os.getpid()}"
