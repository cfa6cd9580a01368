"""
Forks: what a child creates again, and when forks must wait.

What an object has that was made before a fork is the parent's, and a lock of it may be held by a thread that is not in
the child: `in_child` names the method that creates it again.

No fork during a SQLite transaction, nor with an open SQLite connection.

SQLite keeps the locks of a process in its memory, and a forked child inherits that memory without the operating
system's locks (sqlite.org/howtocorrupt.html, 2.6). During a transaction of another thread, the file stays locked
for the child; with an idle connection, the child believes in locks that end with its parent, and what it commits
later can vanish. So a fork waits for the transactions of the other threads and then closes what is idle.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
#: A transaction that takes longer than this waits for another process; the fork happens without it.
_LONGEST: Final = 20.0


_RESETS: Final[weakref.WeakKeyDictionary[Any, Callable[[Any], None]]] = weakref.WeakKeyDictionary()


def in_child(owner: T, reset: Callable[[T], None]) -> None:
    """
    Have `reset(owner)` called in every forked child, in the order of these calls, while the owner is in use.

    The owner is not kept alive by it. The method takes no lock that was made before the fork.
    """
    _RESETS[owner] = reset


class Lock:
    """A lock that is open in a forked child, even if a thread held it in the parent."""

    def __init__(self) -> None:
        self._open()
        in_child(self, Lock._open)

    def _open(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Forks:
    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._open: Counter[int] = Counter()
        self._close_idle: list[Callable[[], None]] = []

    def close_before(self, close_idle: Callable[[], None]) -> None:
        """Have this called before every fork, when no other thread is in a transaction."""
        self._close_idle.append(close_idle)

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
        for close_idle in self._close_idle:
            close_idle()

    def after_in_parent(self) -> None:
        self._changed.release()

    def after_in_child(self) -> None:
        mine = self._open[threading.get_ident()]
        self._changed = threading.Condition(threading.Lock())
        self._open = Counter({threading.get_ident(): mine})
        with ExitStack() as resets:  # each is called, whatever another raises; the last that is pushed first
            for owner, reset in reversed(list(_RESETS.items())):
                resets.callback(reset, owner)


_FORKS: Final = _Forks()
held_off: Final = _FORKS.held_off
close_before: Final = _FORKS.close_before
os.register_at_fork(before=_FORKS.before, after_in_parent=_FORKS.after_in_parent, after_in_child=_FORKS.after_in_child)
