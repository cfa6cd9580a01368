"""
A body that is about to run under a claim: it runs once, and its end is recorded once.

The caller decides what lies between the two. `at_once` is for a caller that needs the ledger's answer before it
continues: such a completion shares its commit with no other.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from runclaim.flows.run.attempt import Attempt
    from runclaim.flows.run.ending import Ended
    from runclaim.flows.run.execution import Execution
    from runclaim.ledger.fence import Claim
    from runclaim.states import RunState


class Record(Protocol):
    """What can record."""

    def __call__(self, body: Body, ended: Ended, /, *, at_once: bool) -> Execution:
        """Have the end of a body recorded; returns what came of it. Raises: LedgerUnavailable."""
        ...


class Body:
    """One start of a phase's body. `ended` is how it ended, `execution` what the ledger made of it."""

    def __init__(self, claim: Claim, attempt: Attempt, record: Record) -> None:
        self.claim, self.attempt = claim, attempt
        #: On the monotonic clock.
        self.since = time.monotonic()
        self.ended: Ended | None = None
        self.execution: Execution | None = None
        self._record = record

    def run(self) -> Ended:
        """Run it; however often this is called, it runs once: each start is counted, by its claim."""
        if self.ended is None:
            self.ended = self.attempt.run()
        return self.ended

    def failed(self, error: Exception) -> Ended:
        """How it ends by an error of what lies around it."""
        return self.attempt.ended_by(error, timedelta(seconds=time.monotonic() - self.since))

    def record(self, ended: Ended, *, at_once: bool = False) -> Execution:
        """Have its end recorded; returns what the ledger made of it. Raises: LedgerUnavailable."""
        self.execution = self._record(self, ended, at_once=at_once)
        return self.execution


class Watcher(Protocol):
    """Performs each body as the application wants it run, and hears of each attempt as it starts and ends."""

    def started(self, claim: Claim) -> None:
        """A body is about to run."""
        ...

    def perform(self, body: Body) -> None:
        """Run the body and have its end recorded: `body.record(body.run())`, and what belongs around the two."""
        ...

    def ended(self, claim: Claim, ended: Ended, state: RunState | None) -> None:
        """It has ended; `state` is the run's, `None` when the claim was lost."""
        ...
