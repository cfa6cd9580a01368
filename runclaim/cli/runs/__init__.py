"""`runclaim runs`: enqueue, watch and stop runs."""

from __future__ import annotations

from typing import Final

import click

from runclaim.cli.lazy import Lazy

_HERE: Final = "runclaim.cli.runs"


@click.group(
    cls=Lazy,
    table={
        "enqueue": (f"{_HERE}.enqueue", "Make a run of FLOW, or find the run that its key already has."),
        "status": (f"{_HERE}.read:status", "Show one run: its phases, its error or its result."),
        "list": (f"{_HERE}.read:list_", "List runs, the newest first."),
        "tail": (f"{_HERE}.tail", "Follow a run's events to its end, then its output or error."),
        "cancel": (f"{_HERE}.change:cancel", "Cancel runs, or ask their workers to stop."),
        "retry": (f"{_HERE}.change:retry", "Start the failed phase of failed runs again."),
        "resume": (f"{_HERE}.change:resume", "Go on with blocked runs, from their blocked phase."),
        "rerun": (f"{_HERE}.change:rerun", "Do runs again: new ones of the same keys and inputs."),
    },
)
def command() -> None:
    """Enqueue, watch and stop runs."""
