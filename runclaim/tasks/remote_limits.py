"""
Limits that remote control puts on a task (`control.rate_limit`, `control.time_limit`), as pool children see them.

Celery tells the worker's main process alone; the children were forked before. They have to know, since Celery counts
and times messages: a limited phase shares none. A pool that spawns instead of forking sees only limits of the code.
"""

from __future__ import annotations

import mmap
from typing import Any, Final

_NAMES: Final = frozenset({"rate_limit", "time_limit", "soft_time_limit"})
_UNTOUCHED, _FREE, _LIMITED = 0, 1, 2


class RemoteLimit:
    """A byte of memory, shared with every process that is forked after it was made."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    @property
    def is_set(self) -> bool | None:
        """Whether the task is limited now; `None` while remote control has said nothing."""
        state = self._shared[0]
        return None if state == _UNTOUCHED else state == _LIMITED

    def note(self, *, limited: bool) -> None:
        """Remote control has changed the task's limits."""
        self._shared[0] = _LIMITED if limited else _FREE


def attributes() -> dict[str, Any]:
    """What a phase's task has so that its children see its limits."""
    return {"remote_limit": RemoteLimit(), "__setattr__": _set}


def _set(task: Any, name: str, value: Any) -> None:
    object.__setattr__(task, name, value)
    # What the code and the configuration say is set on the class; remote control sets the task itself.
    if name in _NAMES:
        task.remote_limit.note(limited=any(getattr(task, each) for each in _NAMES))
