"""
What a body of the tests' application can be told to do: a verb, and after a space its argument.

    pass            nothing
    take SECONDS    as long as real work would
    gate            wait until the test opens the gate of this run and phase
    check           the same, but call `ctx.check()` all the while
    again           the same as gate, but not in the first attempt
    fail N          raise ValueError in the first N attempts
    leak REFERENCE  raise ValueError with the secret of that reference and a token in it
    retry SECONDS   raise Retry(after=SECONDS) in the first attempt
    block           raise Blocked until the test opens the gate
    skip            raise Skip
    plan N          plan N actions, whose payloads are the run's name
    kill            SIGKILL this process; kill N: in the first N attempts
    exit N          sys.exit in the first N attempts
    hang N          sleep for a minute in one call, in the first N attempts; a soft time limit interrupts it
    deaf N          the same, and nothing but SIGKILL interrupts it
    hog SECONDS     one regular expression that holds the GIL so long, up to twice that, in the first attempt
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from runclaim import Blocked, Retry, Skip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runclaim import Context

#: Looks like a secret; put together here, so that no scanner of this repository takes it for real.
TOKEN: Final = "ghp_" + "Can4ry" * 6
#: A gate that a failed test never opens lets its body go in the end.
_LONGEST: Final = 90.0
_EVERY_ATTEMPT: Final = 1_000


def gate(folder: Path, name: str, phase: str) -> Path:
    """The file whose existence opens the gate."""
    return folder / f"gate-{name}-{phase}".replace("/", "_")


def perform(ctx: Context[Any], told: str, folder: Path) -> None:
    """Do what the run's input tells this phase."""
    verb, _, argument = told.partition(" ")
    opened = gate(folder, ctx.input.name, ctx.phase)
    if verb in _UNTIL_OPENED:
        _UNTIL_OPENED[verb](ctx, opened)
    elif verb == "retry" and ctx.attempt == 1:
        raise Retry("told to wait", after=timedelta(seconds=float(argument)))
    elif verb == "leak":
        raise ValueError(f"refused: {ctx.secret(argument)}, {TOKEN}")
    elif verb == "skip":
        raise Skip("told to skip")
    elif verb == "plan":
        for _ in range(int(argument)):
            ctx.plan_action("note", ctx.input.name)
    elif verb == "take":
        time.sleep(float(argument))
    elif verb == "hog" and ctx.attempt == 1:
        _hog(float(argument))
    elif verb in _IN_FIRST_ATTEMPTS and ctx.attempt <= int(argument or _EVERY_ATTEMPT):
        _IN_FIRST_ATTEMPTS[verb]()


def wait_at(opened: Path, check: Callable[[], None] = lambda: None) -> None:
    """Wait until the gate is open; `check` is called all the while."""
    ends = time.monotonic() + _LONGEST
    while not opened.exists() and time.monotonic() < ends:
        check()
        time.sleep(0.01)


def _hog(seconds: float) -> None:
    """Backtrack in one call; each more letter doubles the time."""
    began = time.monotonic()
    _backtrack(18)
    _backtrack(18 + math.ceil(math.log2(seconds / (time.monotonic() - began))))


def _backtrack(letters: int) -> None:
    re.match(r"(a+)+$", "a" * letters + "b")


def _block(opened: Path) -> None:
    if not opened.exists():
        raise Blocked("told to stop here")


def _fail() -> None:
    raise ValueError("told to fail")


def _hang() -> None:
    time.sleep(60)


def _be_deaf() -> None:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            time.sleep(60)
        except Exception:  # noqa: BLE001 - a body that swallows what it is told
            continue


_UNTIL_OPENED: Final[dict[str, Callable[[Context[Any], Path], None]]] = {
    "gate": lambda _ctx, opened: wait_at(opened),
    "check": lambda ctx, opened: wait_at(opened, ctx.check),
    "again": lambda ctx, opened: None if ctx.attempt == 1 else wait_at(opened),
    "block": lambda _ctx, opened: _block(opened),
}
_IN_FIRST_ATTEMPTS: Final[dict[str, Callable[[], object]]] = {
    "fail": _fail,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: sys.exit(3),
    "hang": _hang,
    "deaf": _be_deaf,
}
