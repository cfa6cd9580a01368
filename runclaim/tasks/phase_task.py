"""
The Celery task of a phase: hands the run that the message names to the runner, and gives Celery the verdict.

It acks early and ignores results: the ledger recovers what a dying worker drops, faster and without doubling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from celery.app.task import Context
from celery.exceptions import Ignore

from runclaim import logs
from runclaim.broker import is_limited
from runclaim.errors import InputError, LedgerRefused, LedgerUnavailable
from runclaim.flows.messages.message import Message
from runclaim.flows.run.ending import COMPLETE, Ending
from runclaim.tasks import eager, remote_limits
from runclaim.tasks.body_task import attributes, body_here, fail, ignored, verdict_text
from runclaim.tasks.meanings import meaning, retry
from runclaim.tasks.request import PhaseRequest
from runclaim.tasks.routes import queue_of
from runclaim.tasks.serializer import Serializer
from runclaim.tasks.task_events import Monitor
from runclaim.tracebacks import harmless

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery
    from celery.app.task import Task

    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.flows.declare.phase import Phase
    from runclaim.tasks.runtime import Runtime

logger: Final = logs.logger("runclaim.worker")


def register(app: Celery, runtime: Runtime, flow: DeclaredFlow[Any], phase: Phase[Any, Any]) -> None:
    """Make the task `flow.phase` in the application's registry; as for its own tasks, Celery does so when it must."""
    if flow.fail_open:
        runtime.allow_fail_open()

    def deliver(
        self: Task[Any, Any],
        named: str | list[tuple[str, int]],
        fence: int = 0,
        carried: dict[str, Any] | None = None,
    ) -> str:
        if body := body_here():
            return body()
        monitor = Monitor(runtime, self.request)
        return _deliver(monitor, runtime, flow, phase, _message(phase, named, fence, carried))

    def carry(task: Any, task_id: str, args: Any, kwargs: Any, request: dict[str, Any]) -> Any:
        request = request | {"id": task_id, "args": args, "kwargs": kwargs, "called_directly": False}
        monitor = Monitor(runtime, Context(request), carries=True)
        try:
            _deliver(monitor, runtime, flow, phase, _message(phase, *args, **kwargs))
        except Ignore as nothing:
            return monitor.first or ignored(task, request, nothing)
        except Exception as error:  # noqa: BLE001 - Celery tells it, as of any message
            return monitor.first or fail(task, error, request)
        return monitor.first

    deliver.__doc__ = phase.__doc__
    phase.meaning = meaning
    make: Any = app.task
    make(
        deliver,
        shared=False,
        name=phase.task_name,
        bind=True,
        Request=PhaseRequest(runtime),
        acks_late=False,
        ignore_result=True,
        serializer=Serializer(),
        max_retries=0,
        # The ledger retries; Celery would send a message that is refused, and tell monitors of a retry that does not
        # happen.
        autoretry_for=(),
        of_runclaim=True,
        retry=retry,
        typing=False,
        **attributes(carry),
        **eager.attributes(carry),
        **remote_limits.attributes(),
    )


def _message(phase: Phase[Any, Any], named: object, fence: object = 0, carried: object = None) -> Message:
    try:
        return Message.of(named, fence, carried)
    except InputError as refused:
        logger.error("a message of %s was refused and dropped: %s", phase.task_name, refused)  # noqa: TRY400 - its text is enough
        raise Ignore from None


def _deliver(
    monitor: Monitor, runtime: Runtime, flow: DeclaredFlow[Any], phase: Phase[Any, Any], message: Message
) -> str:
    try:
        deliverer = runtime.deliverer(flow, monitor.hostname or "local")
        first = deliverer.deliver(flow, phase, message, inline=_inline(runtime, message), watcher=monitor)
    except LedgerUnavailable as away:
        logger.warning("%s %s: %s; the run waits in the ledger", phase.task_name, message.run_id, away)
        raise
    except LedgerRefused as refused:
        logger.error("%s %s: %s; the run waits in the ledger", phase.task_name, message.run_id, refused)  # noqa: TRY400 - its words say what to mend
        raise
    if first.ended is None:
        monitor.refused("not claimed: already claimed, moved on, or not due")
        raise Ignore
    if first.ending is Ending.FAILURE and first.ended.exception is not None:
        # Celery logs it, sends it to monitors, and may keep it in a result backend.
        raise harmless(first.ended.exception, first.ended.hide)
    if first.ending in COMPLETE:
        return verdict_text(first.ending, None)
    raise Ignore


def _inline(runtime: Runtime, message: Message) -> Callable[[Phase[Any, Any], Phase[Any, Any]], bool]:
    """Whether a phase may follow another in one delivery: the same queue, and no limit that Celery has to enforce."""
    lanes: dict[str, str | None] = {}

    def lane(phase: Phase[Any, Any]) -> str | None:
        # A router is asked once per delivery and phase: it may be the application's own, and slow.
        if phase.task_name not in lanes:
            lanes[phase.task_name] = _lane(runtime.app, phase, message)
        return lanes[phase.task_name]

    def allowed(before: Phase[Any, Any], after: Phase[Any, Any]) -> bool:
        return lane(before) == lane(after) is not None

    return allowed


def _lane(app: Celery, phase: Phase[Any, Any], message: Message) -> str | None:
    task = cast("Any", app.tasks[phase.task_name])
    if is_limited(app, task):
        return None
    if phase.options.queue is not None:
        return phase.options.queue
    try:
        return queue_of(app, phase.task_name, args=(message.run_id, message.fence))
    except Exception as error:  # noqa: BLE001 - a router is the application's own
        logger.debug("the router of %s raised %r; the phase goes through the broker", phase.task_name, error)
        return None
