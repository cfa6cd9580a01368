"""
A process that commits all the time, to be killed: it enqueues runs and works them off, without Celery.

Each run that its caller was told of is a line in the file `acknowledged`, each that has ended one in `succeeded`.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runclaim.flows.messages.message import Message
from runclaim.states import RunState
from tests.harness import build

if TYPE_CHECKING:
    from runclaim.flows.run.body import Body
    from runclaim.flows.run.ending import Ended
    from runclaim.ledger.fence import Claim


class Nobody:
    """Hears of attempts and tells nobody."""

    def started(self, claim: Claim) -> None:
        """An attempt starts."""

    def perform(self, body: Body) -> None:
        """Its body runs."""
        body.record(body.run())

    def ended(self, claim: Claim, ended: Ended, state: RunState | None) -> None:
        """An attempt has ended."""


def work(told: dict[str, Any]) -> None:
    """Enqueue a run and run its phases, for ever."""
    stage = build(told)
    folder, pid = Path(told["folder"]), os.getpid()
    runner = stage.runs._runtime.runner("committer")
    first = stage.steps.phases["first"]
    for number in itertools.count():
        run = stage.steps.enqueue(name=f"{pid}-{number}")
        note(folder / "acknowledged", run.id)
        runner.deliver(stage.steps, first, Message(run.id, 0), inline=lambda *_: True, watcher=Nobody())
        if run.state is RunState.SUCCEEDED:
            note(folder / "succeeded", run.id)


def note(file: Path, line: str) -> None:
    """Append a line in one write."""
    with file.open("a") as out:
        out.write(f"{line}\n")


if __name__ == "__main__":
    work(json.loads(os.environ["HARNESS"]))
