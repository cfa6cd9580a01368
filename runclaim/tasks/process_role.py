"""What a process is to Celery: a worker's own, a child of its pool, or any other; told from what Celery itself says."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

from celery.worker import state

from runclaim import logs
from runclaim.tasks.flags import Flags

if TYPE_CHECKING:
    from runclaim.ledger.fence import Claim

logger: Final = logs.logger("runclaim.worker")


class ProcessRole:
    """One for each attached app; a forked process keeps its copy, and is told apart by its id."""

    def __init__(self) -> None:
        self.flags = Flags()
        self._worker_pid = self._child_pid = 0

    def worker_starts(self) -> None:
        """From now on a worker's own process, whatever it was before."""
        self._worker_pid, self._child_pid = os.getpid(), 0
        self.flags.stopping = False

    def pool_starts(self) -> None:
        """Bodies run in this process: a child of the pool, or the worker's own where the pool is solo."""
        self._child_pid = 0 if os.getpid() == self._worker_pid else os.getpid()

    @property
    def is_pool_child(self) -> bool:
        """Whether it may be ended without ending the worker, or whatever the worker is embedded in."""
        return self._child_pid == os.getpid()

    @property
    def is_stopping(self) -> bool:
        """The worker shuts down: as its own process says, or as Celery says where bodies run in that process."""
        # `False` and `None` are Celery's "no"; 0 is the exit status of a shutdown.
        of_celery = (state.should_stop, state.should_terminate)
        return self.flags.stopping or any(each is not None and each is not False for each in of_celery)

    def end_overdue(self, claim: Claim, times: int) -> None:
        """A body outlived its max_duration. First it is interrupted; a child that does not react is ended."""
        what = "interrupting" if times == 1 else "ending the process"
        outcome = f"; {what}" if self.is_pool_child else " and still holds its slot"
        logger.error("%s/%s is past its max_duration%s", claim.run_id, claim.phase, outcome, extra=logs.of(claim))
        if self.is_pool_child:
            # SIGUSR1 is Celery's soft time limit in a prefork child: SoftTimeLimitExceeded in the body.
            os.kill(os.getpid(), signal.SIGUSR1 if times == 1 else signal.SIGKILL)
