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
    return any(each.receivers and each.has_listeners(task) for each in _SIGNALS) or _has_own_code(task, tracer)


def _has_own_code(task: Any, tracer: Any) -> bool:
    """Looked at once for each tracer: Celery makes one in each process, when the task's class is complete."""
    looked_at, answer = vars(task).get("runclaim_own_code", (None, False))
    if looked_at is not tracer:
        answer = _has_own_code_now(task, tracer)
        task.runclaim_own_code = tracer, answer
    return bool(answer)


def _has_own_code_now(task: Any, tracer: Any) -> bool:
    return (
        any(is_overridden(task, name) for name in _HANDLERS)
        or type(task.app.loader).on_task_init is not BaseLoader.on_task_init
        or not (isinstance(tracer, FunctionType) and tracer.__globals__ is vars(trace))
    )


def is_overridden(task: Any, name: str) -> bool:
    """Whether the application has a method of this name between the task and Celery's own Task."""
    for names in (vars(task), *(vars(node) for node in type(task).__mro__ if node is not Task)):
        if name in names and getattr(names[name], "__module__", "") != "runclaim.tasks.body_task":
            return True
    return not vars(Task)[name].__module__.startswith("celery.")
