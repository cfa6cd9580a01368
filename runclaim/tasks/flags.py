"""
What the worker's main process tells its pool children: stop soon, and whether anybody listens to task events.

Two bytes of anonymous shared memory, made before the fork. A pool that spawns instead of forking has its own.
"""

from __future__ import annotations

import mmap
from typing import Final

_STOPPING: Final = 0
_EVENTS: Final = 1


class Flags:
    """Two flags, shared with every process that is forked after they were made."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 2)

    @property
    def stopping(self) -> bool:
        """The worker shuts down: no new phase is started, `ctx.check` ends the current one."""
        return self._shared[_STOPPING] == 1

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._shared[_STOPPING] = int(value)

    @property
    def events(self) -> bool:
        """Task events are wanted: the worker was started with them, or a monitor asked for them."""
        return self._shared[_EVENTS] == 1

    @events.setter
    def events(self, value: bool) -> None:
        self._shared[_EVENTS] = int(value)
