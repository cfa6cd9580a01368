"""The tests' application with a receiver: it writes down what it hears, and dies once where the file `dies` says."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness import Stage, build

if TYPE_CHECKING:
    from runclaim.listeners.listener import Event


def hearing(told: dict[str, Any]) -> Stage:
    """The application, which hears of every run's end."""
    made, folder = build(told), Path(told["folder"])

    @made.runs.on("run.succeeded", name="diary")
    def note(event: Event) -> None:
        dies = folder / "dies"
        if dies.exists() and dies.read_text() == event.key:
            dies.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        with (folder / "heard").open("a") as file:
            file.write(f"{event.id} {event.key}\n")

    return made


if "HARNESS" in os.environ:
    stage = hearing(json.loads(os.environ["HARNESS"]))
    app = stage.app
