"""What a process brings to its deliveries: connections, the keeper of its leases, what it knows of its phases' pace."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.config import Config
    from runclaim.database import Database
    from runclaim.flows.declare.phase import Phase
    from runclaim.flows.messages.publisher import Publisher
    from runclaim.flows.run.execution import Inline
    from runclaim.flows.run.group_minder import Minder
    from runclaim.flows.run.lease_keeper import Keeper
    from runclaim.flows.run.pace import Pace

#: How long a pool child waits to hear that the worker stops when it is ended itself.
_HEARD_SECONDS: Final = 0.5
#: A phase whose claims are safe for less than this shares nothing.
_SHORTEST: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that runs phases. `worker` is its name, `stopping` tells that it shuts down."""

    database: Database
    keeper: Keeper
    publisher: Publisher
    config: Config
    pace: Pace
    minder: Minder
    worker: str
    stopping: Callable[[], bool]

    def lease(self, phase: Phase[Any, Any]) -> timedelta:
        """How long a claim of the phase is safe without a heartbeat."""
        return phase.options.lease_under(self.config)

    def max_duration(self, phase: Phase[Any, Any]) -> timedelta:
        """When a claim of the phase ends even with a heartbeat."""
        return phase.options.max_duration_under(self.config)

    def size(self, phase: Phase[Any, Any], *, inline: Inline) -> int:
        """How many runs of `phase` are started in one go: one where a group could spend another run's budget."""
        shortest = min(self.lease(phase), self.max_duration(phase))
        spends = phase.options.max_attempts == 1 or phase.max_losses == 1
        if not self.config.grouped or spends or shortest < _SHORTEST or not inline(phase, phase):
            return 1
        return self.pace.size(phase.task_name)

    def is_cut_off(self) -> bool:
        """
        Whether it shuts down, for a body that was ended in its middle.

        A signal to the whole process group may reach a pool child before its parent has told it to stop, so this waits
        for that word for half a second.
        """
        ends = time.monotonic() + _HEARD_SECONDS
        while not (stopping := self.stopping()) and time.monotonic() < ends:
            time.sleep(0.02)
        return stopping
