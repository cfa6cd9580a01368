"""What an application hangs on a task: handlers of its Task class, receivers of Celery's signals, wrapped tracers."""

from __future__ import annotations

from types import FunctionType
from typing import Any, Final

from celery import signals
from celery.app import trace
from celery.app.task import Task
from celery.loaders.base import BaseLoader

_HANDLERS: Final = ("__call__", "before_start", "on_success", "on_failure", "on_retry", "after_return")
_SIGNALS: Final = (
    signals.task_prerun,
    signals.task_postrun,
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
)


def is_hung_on(task: Any, tracer: Any) -> bool:
    """Whether the application runs code of its own around this task, or listens to what becomes of it."""
    return (
        any(signal.receivers and signal.has_listeners(task) for signal in _SIGNALS)
        or any(is_overridden(task, name) for name in _HANDLERS)
        or type(task.app.loader).on_task_init is not BaseLoader.on_task_init
        or not (isinstance(tracer, FunctionType) and tracer.__globals__ is vars(trace))
    )


def is_overridden(task: Any, name: str) -> bool:
    """Whether the application has a method of this name between the task and Celery's own Task."""
    for names in (vars(task), *(vars(node) for node in type(task).__mro__ if node is not Task)):
        if name in names and getattr(names[name], "__module__", "") != "runclaim.tasks.body_task":
            return True
    return not vars(Task)[name].__module__.startswith("celery.")
