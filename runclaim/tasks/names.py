"""The names of runclaim's tasks: Celery gives a name to one function, and drops the other without an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runclaim.broker import is_ours
from runclaim.tasks import upkeep

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.tasks.runtime import Runtime


def taken_names(app: Celery, runtime: Runtime) -> list[str]:
    """A sentence for each task of the application that has the name of one of runclaim's."""
    phases = {phase.task_name: phase.body for flow in runtime.flows.values() for phase in flow.phases.values()}
    # Of Celery 5.7 or newer: the names of which it has dropped the second function, and warned.
    dropped: set[str] = getattr(app, "_duplicate_task_names_warned", set())
    taken = []
    for name in (*upkeep.ALL, *phases):
        ours = f"the phase {_place(phases[name])}" if name in phases else "runclaim's upkeep"
        if not is_ours(app, name):
            task: Any = app.tasks[name]
            theirs = f"{_place(getattr(task, '__wrapped__', None) or type(task))}, a task of the application"
        elif name in dropped:
            theirs = "a task of the application, which Celery's DuplicateTaskNameWarning names"
        else:
            continue
        taken.append(f"the task name {name} is taken twice: by {ours}, and by {theirs}. Give the task another name=…")
    return taken


def _place(function: Any) -> str:
    function = getattr(function, "__func__", function)
    return f"{function.__module__}.{function.__qualname__}"
