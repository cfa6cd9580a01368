"""The doorbell: at once when nobody has rung just now, otherwise together; nothing waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from runclaim.flows.messages import doorbell as module
from runclaim.flows.messages.doorbell import Doorbell
from runclaim.ledger.dispatch import Due
from runclaim.pause import Pause
from tests.harness import until


def due(number: int) -> Due:
    return Due(str(number), 0, "review", "plan", None, "key", 0)


class Bell:
    """A broker that takes as long as it is told to."""

    def __init__(self) -> None:
        self.messages: list[list[str]] = []
        self.threads: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, named: Any) -> int:
        self.threads.append(threading.current_thread().name)
        self.messages.append([each.run_id for each in named])
        self.open.wait(20)
        return len(named)


@pytest.fixture
def bell() -> Bell:
    return Bell()


def test_the_first_is_rung_by_the_caller_at_once(bell: Bell):
    Doorbell(bell).ring([due(1)])

    assert [["1"]] == bell.messages
    assert [threading.current_thread().name] == bell.threads


def test_what_comes_while_somebody_rings_shares_the_next_message(bell: Bell):
    """
    INVARIANT: few messages at a high rate, and each run is named once.

    Breaks if every enqueue sends a message of its own, or what waited is forgotten.
    """
    doorbell = Doorbell(bell)
    bell.open.clear()
    first = threading.Thread(target=doorbell.ring, args=([due(0)],))
    first.start()
    until(lambda: bell.messages, "the first message")
    for number in range(1, 50):
        doorbell.ring([due(number)])
    bell.open.set()
    first.join()
    until(lambda: sum(map(len, bell.messages)) == 50, "the others")

    assert [["0"], [str(number) for number in range(1, 50)]] == bell.messages


def test_what_waits_goes_along_first_with_the_next_that_rings_itself(bell: Bell, monkeypatch: pytest.MonkeyPatch):
    """Breaks if a caller who finds the pause over, before the thread does, overtakes what waits."""
    monkeypatch.setattr(module, "_PAUSE", 60.0)
    doorbell = Doorbell(bell)
    # The thread is late: a machine that is not busy may have it ring for the second before the third comes.
    monkeypatch.setattr(doorbell, "_start", lambda: None)
    doorbell.ring([due(1)])
    doorbell.ring([due(2)])
    doorbell._pause = Pause(60.0)
    doorbell.ring([due(3)])

    assert [["1"], ["2", "3"]] == bell.messages


def test_a_clock_that_was_frozen_once_holds_up_nothing_later(bell: Bell, monkeypatch: pytest.MonkeyPatch):
    """
    INVARIANT: after a test that froze the time, what is enqueued in the same process is published as ever.

    Breaks if an instant of another clock is waited for: a frozen one may be years ahead of the real one.
    """
    doorbell = Doorbell(bell)
    with monkeypatch.context() as frozen:
        frozen.setattr(time, "monotonic", lambda: 1e12)
        doorbell.ring([due(1)])
    doorbell.ring([due(2)])

    assert [["1"], ["2"]] == bell.messages
    assert doorbell._thread is None


def test_an_idle_doorbell_starts_no_thread_and_a_used_one_ends_its_own(bell: Bell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_IDLE", 0.05)
    doorbell = Doorbell(bell)
    doorbell.ring([due(1)])
    assert doorbell._thread is None
    doorbell.ring([due(2)])
    until(lambda: len(bell.messages) == 2 and doorbell._thread is None, "the end of its thread")
    doorbell.ring([due(3)])
    until(lambda: len(bell.messages) == 3, "the third")


def test_flush_rings_now(bell: Bell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PAUSE", 60.0)
    doorbell = Doorbell(bell)
    doorbell.ring([due(1)])
    doorbell.ring([due(2), due(3)])
    assert [["1"]] == bell.messages
    doorbell.flush()

    assert [["1"], ["2", "3"]] == bell.messages


def test_flush_waits_for_who_rings_already(bell: Bell):
    """Breaks if the process ends while its thread has taken what waits and not yet sent it."""
    doorbell = Doorbell(bell)
    bell.open.clear()
    first = threading.Thread(target=doorbell.ring, args=([due(0)],))
    first.start()
    until(lambda: bell.messages, "the first message")
    flushing = threading.Thread(target=doorbell.flush)
    flushing.start()
    flushing.join(0.1)
    assert flushing.is_alive()
    bell.open.set()
    flushing.join(20)

    assert not flushing.is_alive()
    first.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_rings_for_its_own_runs_only(bell: Bell, monkeypatch: pytest.MonkeyPatch):
    """What waits at the fork is the parent's; the child neither rings for it nor hangs on the parent's lock."""
    monkeypatch.setattr(module, "_PAUSE", 60.0)
    doorbell = Doorbell(bell)
    doorbell.ring([due(1)])
    doorbell.ring([due(2)])
    child = os.fork()
    if not child:
        bell.messages.clear()
        doorbell.ring([due(3)])
        doorbell.flush()
        os._exit(0 if bell.messages == [["3"]] else 1)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    doorbell.flush()
    assert [["1"], ["2"]] == bell.messages


ENDS = {
    "a script": "doorbell.ring([due(1)]); doorbell.ring([due(2)])",
    "sys.exit": "doorbell.ring([due(1)]); doorbell.ring([due(2)]); raise SystemExit(0)",
    "a child of multiprocessing": (
        "import multiprocessing\n"
        "def work():\n    doorbell.ring([due(1)]); doorbell.ring([due(2)])\n"
        "child = multiprocessing.get_context('fork').Process(target=work); child.start(); child.join()"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_process_that_ends_rings_first(end: str):
    """
    INVARIANT: what was enqueued in the last milliseconds of a process is published before it is gone.

    Breaks if the flush is left to atexit alone, which children of multiprocessing do not call.
    """
    told = (
        "from runclaim.flows.messages import doorbell as module\nfrom runclaim.ledger.dispatch import Due\n"
        "module._PAUSE = 60.0\n"
        "due = lambda n: Due(str(n), 0, 'f', 'p', None, 'k', 0)\n"
        "say = lambda named: print(' '.join(each.run_id for each in named), flush=True)\n"
        f"doorbell = module.Doorbell(say)\n{ENDS[end]}"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60)

    assert ["1", "2"] == done.stdout.split()
