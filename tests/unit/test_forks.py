"""One hook makes anew, in a forked child, what its parent's objects hold."""

from __future__ import annotations

import gc
import os
import warnings
import weakref
from typing import TYPE_CHECKING

import pytest

from runclaim import forks
from runclaim.flows.actions.outcomes import Outcomes
from runclaim.flows.messages.doorbell import Doorbell
from runclaim.flows.run.group_minder import Minder
from runclaim.flows.run.lease_keeper import Keeper
from runclaim.sql.watchdog import WATCHDOG

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
RESET, KEPT = 0, 3


class Held:
    """Something with a thread or a lock of its own, as far as the hook knows."""

    def __init__(self, *, raises: bool = False) -> None:
        self.resets, self._raises = 0, raises
        forks.in_child(self, Held._reset)

    def _reset(self) -> None:
        self.resets += 1
        if self._raises:
            raise RuntimeError("this one cannot be made anew")


def status_in_child(question: Callable[[], bool]) -> int:
    """What a forked child ends with: `RESET` when the question is true there."""
    with warnings.catch_warnings(action="ignore"):  # newer Pythons warn of a fork beside threads: that is the point
        child = os.fork()
    if not child:
        status = 1
        try:
            status = RESET if question() else KEPT
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_object_is_made_anew_in_the_child_once_and_stays_as_it_is_in_the_parent():
    held = Held()
    in_child = status_in_child(lambda: held.resets == 1)

    assert RESET == in_child
    assert 0 == held.resets


def test_one_that_cannot_be_made_anew_keeps_no_other_from_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.unraisablehook", lambda _error: None)  # of the child, which inherits it
    before, fails, after = Held(), Held(raises=True), Held()

    assert RESET == status_in_child(lambda: (1, 1, 1) == (before.resets, fails.resets, after.resets))


def test_an_object_that_nobody_refers_to_is_not_kept_for_the_next_fork():
    held = weakref.ref(Held())
    gc.collect()

    assert held() is None


@pytest.mark.parametrize(
    "make, lock",
    [
        (forks.Lock, "_lock"),
        (lambda: Doorbell(lambda _due: None), "_changed"),
        (lambda: Keeper(None), "_wake"),
        (Minder, "_changed"),
        (lambda: Outcomes(lambda: None, lambda _name, _kind: None), "_changed"),
        (lambda: WATCHDOG, "_changed"),
    ],
    ids=["lock", "doorbell", "keeper", "minder", "outcomes", "watchdog"],
)
def test_a_lock_that_a_thread_held_at_the_fork_is_another_one_in_the_child(make: Callable[[], object], lock: str):
    """
    INVARIANT: a forked child waits for no thread that is not in it.

    Breaks if one of these no longer tells the hook how it is made anew: its lock may be held for good in the child.
    """
    held = make()
    in_parent = getattr(held, lock)

    assert RESET == status_in_child(lambda: getattr(held, lock) is not in_parent)
