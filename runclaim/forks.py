"""
No fork in the middle of a SQLite transaction.

SQLite keeps the locks of a process in its memory. A child forked while another thread of its parent is in a
transaction inherits a lock that nobody will ever release: to the child the file is locked for good. So a fork waits for
the transactions of the other threads (a pool that replaces a dead child, while the dead child's claims are given back).
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A transaction that takes longer than this waits for another process; the fork goes on without it.
_LONGEST: Final = 20.0


class _Forks:
    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._open: Counter[int] = Counter()

    @contextmanager
    def held_off(self) -> Iterator[None]:
        me = threading.get_ident()
        with self._changed:
            self._open[me] += 1
        try:
            yield
        finally:
            with self._changed:
                self._open[me] -= 1
                self._open += Counter()  # drops the threads that have none left
                self._changed.notify_all()

    def before(self) -> None:
        me = threading.get_ident()
        self._changed.acquire()
        self._changed.wait_for(lambda: not set(self._open) - {me}, timeout=_LONGEST)

    def after_in_parent(self) -> None:
        self._changed.release()

    def after_in_child(self) -> None:
        mine = self._open[threading.get_ident()]
        self._changed = threading.Condition(threading.Lock())
        self._open = Counter({threading.get_ident(): mine})


_FORKS: Final = _Forks()
held_off: Final = _FORKS.held_off
os.register_at_fork(before=_FORKS.before, after_in_parent=_FORKS.after_in_parent, after_in_child=_FORKS.after_in_child)
