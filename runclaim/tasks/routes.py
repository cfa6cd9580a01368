"""Where Celery's routes send the messages of the upkeep and of phases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runclaim.tasks import upkeep

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.tasks.runtime import Runtime


def queue_of(app: Celery, task: str, queue: str | None = None, args: tuple[Any, ...] = ()) -> str | None:
    """
    The queue of a task's messages, `None` where the route names an exchange and not a queue.

    Raises: what a router of the application raises, QueueNotFound among them.
    """
    given = {} if queue is None else {"queue": queue}
    # What Celery gives a router: it may look at the arguments and at the task.
    router: Any = app.amqp.router
    route = router.route(given, task, args, {}, app.tasks[task])
    queue_or_name = route.get("queue")
    if queue_or_name is None and {"exchange", "routing_key"} & set(route):
        return None
    return str(getattr(queue_or_name, "name", queue_or_name) or app.conf.task_default_queue)


def queues(app: Celery, runtime: Runtime) -> dict[str, list[str]]:
    """Each queue with the tasks that travel it; a task whose route depends on more than its name may be left out."""
    phases = [phase for flow in runtime.flows.values() for phase in flow.phases.values()]
    named = [(name, None) for name in upkeep.ALL] + [(phase.task_name, phase.options.queue) for phase in phases]
    tasks: dict[str, list[str]] = {}
    for name, own in named:
        try:
            queue = queue_of(app, name, own)
        except Exception:  # noqa: BLE001, S112 - a router is the application's own, and wants real arguments
            continue
        if queue is not None:
            tasks.setdefault(queue, []).append(name)
    return tasks
