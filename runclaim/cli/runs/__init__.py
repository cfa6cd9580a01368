"""`runclaim runs`: enqueue, watch and stop runs."""

from __future__ import annotations

from typing import Final

import click

from runclaim.cli.lazy import Lazy

_HERE: Final = "runclaim.cli.runs"


@click.group(
    cls=Lazy,
    table={
        "enqueue": (f"{_HERE}.enqueue", "Enqueue a run of FLOW, or get the run that its key already has."),
        "status": (f"{_HERE}.read:status", "Show one run: its phases, its error or its result."),
        "list": (f"{_HERE}.read:list_", "List runs, newest first."),
        "tail": (f"{_HERE}.tail", "Follow the events of a run until it ends, then print its result or error."),
        "cancel": (f"{_HERE}.change:cancel", "Cancel runs; workers of running ones are asked to stop."),
        "retry": (f"{_HERE}.change:retry", "Restart failed runs at their failed phase."),
        "resume": (f"{_HERE}.change:resume", "Resume blocked runs at their blocked phase."),
        "move-phase": (f"{_HERE}.move_phase", "Give a phase its new name in live runs that are pinned to the old one."),
        "erase": (f"{_HERE}.erase", "Erase what the ended runs of a key or a subject hold, for good."),
        "rerun": (f"{_HERE}.change:rerun", "Enqueue new runs with the keys and inputs of existing ones."),
    },
)
def command() -> None:
    """Enqueue, watch and stop runs."""
