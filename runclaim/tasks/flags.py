"""
What the worker's main process tells its pool children: stop soon, and whether any monitor listens to task events.

A few bytes of anonymous shared memory, made before the fork. A pool that spawns instead of forking has its own.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import Final

_STOPPING: Final = 0
_EVENTS: Final = 1
_CUT_OFF: Final = 8
_INSTANT: Final = struct.Struct("d")
#: A body that ends within this time of a cut-off was ended by it.
_CUT_OFF_SECONDS: Final = 10.0


class Flags:
    """Two flags, shared with every process that is forked after they were made."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _CUT_OFF + _INSTANT.size)

    @property
    def stopping(self) -> bool:
        """The worker shuts down: no new phase is started, `ctx.check` ends the current one."""
        return self._shared[_STOPPING] == 1 or 0 <= time.monotonic() - self._cut_off_at < _CUT_OFF_SECONDS

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._shared[_STOPPING] = int(value)

    @property
    def _cut_off_at(self) -> float:
        (instant,) = _INSTANT.unpack_from(self._shared, _CUT_OFF)
        return float(instant) or float("-inf")

    def cut_off(self) -> None:
        """The worker ends bodies that run, without having said that it shuts down."""
        # The monotonic clock is one for all processes of a machine.
        _INSTANT.pack_into(self._shared, _CUT_OFF, time.monotonic())

    @property
    def events(self) -> bool:
        """Task events are wanted: the worker was started with them, or a monitor asked for them."""
        return self._shared[_EVENTS] == 1

    @events.setter
    def events(self, value: bool) -> None:
        self._shared[_EVENTS] = int(value)
