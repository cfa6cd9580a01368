"""
The Celery task of a phase: hands the run that the message names to the runner, and gives Celery the verdict.

It acks early and ignores results: the ledger recovers what a dying worker drops, faster and without doubling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, QueueNotFound
from kombu.utils.imports import symbol_by_name

from runclaim import logs
from runclaim.broker import is_limited
from runclaim.errors import InputError, LedgerUnavailable
from runclaim.flows.attempt import Ending
from runclaim.flows.delivering import Message
from runclaim.flows.telling import harmless
from runclaim.tasks.monitoring import Monitor, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery
    from celery.app.task import Task

    from runclaim.flows.flow import Flow
    from runclaim.flows.phase import Phase
    from runclaim.tasks.runtime import Runtime

logger: Final = logs.logger("runclaim.worker")


def register(app: Celery, runtime: Runtime, flow: Flow[Any], phase: Phase[Any, Any]) -> None:
    """Make the task `flow.phase` in the application's registry, on the application's own Task class."""
    base = type("PhaseTask", (app.Task,), {"abstract": True, "Request": _request_class(app, runtime)})

    def deliver(
        self: Task[Any, Any],
        named: str | list[tuple[str, int]],
        fence: int = 0,
        carried: dict[str, Any] | None = None,
    ) -> str:
        try:
            message = Message.of(named, fence, carried)
        except InputError as refused:
            logger.error("a message of %s is refused and dropped: %s", phase.task_name, refused)  # noqa: TRY400 - its text is enough
            raise Ignore from None
        return _deliver(self, runtime, flow, phase, message)

    deliver.__doc__ = phase.__doc__
    make: Any = app.task
    make(
        deliver,
        shared=False,
        name=phase.task_name,
        base=base,
        bind=True,
        acks_late=False,
        ignore_result=True,
        serializer="json",
        max_retries=0,
        typing=False,
    )


def _deliver(task: Task[Any, Any], runtime: Runtime, flow: Flow[Any], phase: Phase[Any, Any], message: Message) -> str:
    monitor = Monitor(runtime, task.request)
    try:
        deliverer = runtime.deliverer(task.request.hostname or "local")
        first = deliverer.deliver(flow, phase, message, inline=_inline(runtime), watcher=monitor)
    except LedgerUnavailable as away:
        logger.warning("%s %s: %s; the run waits in the ledger", phase.task_name, message.run_id, away)
        raise
    if first.ended is None:
        monitor.refused("not ours: already claimed, moved on, or not due")
        raise Ignore
    if first.ending is Ending.FAILURE and first.ended.exception is not None:
        # Celery logs it, sends it to monitors, and may keep it in a result backend.
        raise harmless(first.ended.exception, first.ended.hide)
    if first.ending in {Ending.SUCCESS, Ending.SKIPPED}:
        return said(first.ending, None)
    raise Ignore


def _inline(runtime: Runtime) -> Callable[[Phase[Any, Any], Phase[Any, Any]], bool]:
    """Whether a phase may follow another in one delivery: the same queue, and no limit that Celery has to enforce."""
    lanes: dict[str, str | None] = {}

    def lane(phase: Phase[Any, Any]) -> str | None:
        # A router is asked once a delivery and phase: it may be the application's own, and slow.
        if phase.task_name not in lanes:
            lanes[phase.task_name] = _lane(runtime.app, phase)
        return lanes[phase.task_name]

    def allowed(before: Phase[Any, Any], after: Phase[Any, Any]) -> bool:
        return lane(before) == lane(after) is not None

    return allowed


def _lane(app: Celery, phase: Phase[Any, Any]) -> str | None:
    task = cast("Any", app.tasks[phase.task_name])
    if is_limited(app, task):
        return None
    if phase.options.queue is not None:
        return phase.options.queue
    try:
        route = app.amqp.router.route({}, phase.task_name)
    except QueueNotFound:
        return None
    queue = route.get("queue")
    if queue is None and {"exchange", "routing_key"} & set(route):
        return None
    return cast("str", getattr(queue, "name", queue) or app.conf.task_default_queue)


def _request_class(app: Celery, runtime: Runtime) -> type:
    """Celery's request, which also hears in the worker's main process that a pool child died."""
    parent: Any = symbol_by_name(app.Task.Request)

    class PhaseRequest(parent):  # type: ignore[misc]
        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
            found = getattr(exc_info.exception, "exc", exc_info.exception)
            if isinstance(found, WorkerLostError | TimeLimitExceeded):
                runtime.give_back(f"{self.hostname}:{self.worker_pid}")
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

        def cancel(self, *args: Any, **kwargs: Any) -> Any:
            # A cold shutdown, which ends its children before it says so.
            runtime.flags.cut_off()
            return super().cancel(*args, **kwargs)

    return PhaseRequest
