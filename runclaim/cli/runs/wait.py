"""Waiting for the end of a run; on a terminal, one line shows its progress meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from runclaim.cli.backend import ENDS
from runclaim.cli.runs.render import ending
from runclaim.cli.terminal import live, talks_live
from runclaim.errors import RunFailed, WaitTimeout

if TYPE_CHECKING:
    from datetime import timedelta

    from runclaim.cli.backend import Backend, Json

#: How long one question waits: where the line is rewritten, and where it is not.
_TICK: Final = 1.0
_LONG: Final = 20.0


def wait_for(backend: Backend, run_id: str, *, timeout: timedelta | None) -> Json:
    """The run once it has ended, with its input and result. Raises: WaitTimeout."""
    began = time.monotonic()
    shows = talks_live()
    try:
        while True:
            passed = time.monotonic() - began
            left = _LONG if timeout is None else timeout.total_seconds() - passed
            run = backend.wait(run_id, max(0.0, min(left, _TICK if shows else _LONG)))
            if run["state"] in ENDS:
                return backend.run(run_id)
            if timeout is not None and left <= 0:
                raise WaitTimeout(run_id, run["state"], timeout.total_seconds())
            if shows:
                live(progress(run, time.monotonic() - began))
    finally:
        if shows:
            live("")


def progress(run: Json, seconds: float) -> str:
    """The progress of a run, on one line."""
    complete = sum(phase["status"] == "complete" for phase in run["phases"])
    attempt = f", attempt {run['attempts']}" if run["attempts"] > 1 else ""
    return f"{run['state']} {run['phase']} ({complete} of {len(run['phases'])} complete{attempt}), {seconds:.0f} s"


def require_success(run: Json) -> None:
    """Raises: Ended unless the run has succeeded."""
    if run["state"] != "succeeded":
        raise Ended(run)


class Ended(RunFailed):
    """A run that was waited for ended without success; the message says how to continue it."""

    def __init__(self, run: Json) -> None:
        super().__init__(run["id"], run["state"], run["error"])
        self.args = (f"run {run['id']} {ending(run)}",)
