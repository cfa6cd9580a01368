"""`task_always_eager`: a message is delivered by its sender, and each body is a task of its own there, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import states
from celery.result import EagerResult
from celery.utils import uuid
from celery.utils.nodenames import gethostname

from runclaim.tasks.body_task import tracer_of
from runclaim.tasks.handlers import is_hung_on

if TYPE_CHECKING:
    from collections.abc import Callable


def attributes(carry: Callable[..., Any]) -> dict[str, Any]:
    """What a phase's task has for it; `carry` as in `body_task.attributes`."""

    def apply(task: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if not is_hung_on(task, tracer_of(task)):
            return super(type(task), task).apply(args, kwargs, **options)
        task_id = options.get("task_id") or uuid()
        request = {"task": task.name, "hostname": gethostname(), "is_eager": True, "delivery_info": {"is_eager": True}}
        traced = carry(task, task_id, list(args or ()), kwargs or {}, request)
        state = states.SUCCESS if traced.info is None else traced.info.state
        return EagerResult(task_id, traced.retval, state, name=task.name)

    return {"apply": apply}
