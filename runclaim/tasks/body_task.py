"""
To the application each body is one Celery task, whatever message it came by.

A message is a delivery: it may name several runs, and phases follow inline. Where the application has hung something on
a phase's task, no signals are sent for the message itself; each body goes through the tracer that Celery has made for
its task, with a request of its own. Its end is recorded once the Task class's own `__call__` has returned, so that what
that commits is committed first, before success, failure or retry is signaled, so that the signals are true.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from billiard.einfo import ExceptionInfo
from celery import states
from celery.app import trace
from celery.app.task import Context
from celery.exceptions import Ignore, Retry

from runclaim.errors import RunclaimError
from runclaim.flows.run.ending import COMPLETE, Ending
from runclaim.states import RunState
from runclaim.tasks.handlers import is_hung_on, is_overridden
from runclaim.tracebacks import harmless

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from runclaim.flows.run.body import Body
    from runclaim.flows.run.ending import Ended
    from runclaim.flows.run.execution import Execution


def attributes(carry: Callable[..., Any]) -> dict[str, Any]:
    """
    What a phase's task has in addition to what the application's Task class gives it.

    `carry(task, id, args, kwargs, request)` does what a message asks for and returns what a tracer does.
    """

    def on_message(task: Any) -> Any:
        def take(task_id: str, args: Any, kwargs: Any, request: Any = None) -> Any:
            if is_hung_on(task, tracer_of(task)):
                return carry(task, task_id, args, kwargs, request or {})
            return tracer_of(task)(task_id, args, kwargs, request)

        return None if task.runclaim_tracer is None else take

    def set_tracer(task: Any, tracer: Any) -> None:
        task.runclaim_tracer = tracer

    # Celery sets `__trace__` in each process, and calls it with each message.
    return {"runclaim_tracer": None, "__trace__": property(on_message, set_tracer), "__call__": _call}


def _call(task: Any, *args: Any, **kwargs: Any) -> Any:
    """The task, run by Celery or called by hand."""
    own = super(type(task), task).__call__ if is_overridden(task, "__call__") else task.run
    traced = _TRACED.get()
    return own(*args, **kwargs) if traced is None else traced.call(lambda: own(*args, **kwargs))


def tracer_of(task: Any) -> Any:
    """What Celery, or who has wrapped it, made to run the task."""
    if task.runclaim_tracer is None:
        # By the module: that is where others put theirs.
        task.runclaim_tracer = trace.build_tracer(task.name, task, task.app.loader, app=task.app)
    return task.runclaim_tracer


def body_here() -> Callable[[], str] | None:
    """What runs the body that is traced here; `None` where a message is delivered."""
    traced = _TRACED.get()
    return None if traced is None else traced.run


class _Failing:
    """A delivery that went wrong before any body of it began."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def call(self, _own: Callable[[], object]) -> str:
        raise self._error

    def run(self) -> str:
        raise self._error


class _Traced:
    """A body under Celery's tracer. `broken` is why its end could not be recorded."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._raised_at: TracebackType | None = None
        self.broken: Exception | None = None

    def run(self) -> str:
        """What the Task class calls; an attempt that went wrong raises what its body has raised."""
        token = _TRACED.set(None)
        try:
            ended = self._body.run()
        finally:
            _TRACED.reset(token)
        if ended.ending not in COMPLETE and ended.exception is not None:
            self._raised_at = ended.exception.__traceback__
            raise harmless(ended.exception, ended.hide)
        return verdict_text(ended.ending, None)

    def call(self, own: Callable[[], object]) -> str:
        """What the tracer calls; returns or raises what it is to tell."""
        error: Exception | None = None
        try:
            own()
        except Exception as caught:  # noqa: BLE001 - whatever it is, the attempt ends by it
            error = caught
        return _verdict(self.record(error))

    def record(self, error: Exception | None) -> Execution:
        """Have the end recorded; `error` is what was raised around the body, if anything was."""
        token = _TRACED.set(None)
        try:
            return self._body.record(self._ended(error), at_once=True)
        except Exception as broken:
            self.broken = broken
            raise
        finally:
            _TRACED.reset(token)

    def _ended(self, error: Exception | None) -> Ended:
        ended = self._body.ended
        if ended is None:
            return self._body.failed(error or RunclaimError("its Task class returned without running the body"))
        if ended.exception is not None and self._raised_at is not None:
            # The frames around the body do not help to find the error.
            ended.exception.__traceback__ = self._raised_at
        return self._body.failed(error) if error is not None and ended.ending in COMPLETE else ended


_TRACED: Final[ContextVar[_Traced | _Failing | None]] = ContextVar("runclaim_traced", default=None)


def perform(task: Any, body: Body, request: dict[str, Any]) -> Any:
    """
    Run the body as a task of its own; returns what its tracer does. `request` is its own.

    Raises: whatever kept its end from being recorded.
    """
    traced, raised, result = _Traced(body), None, None
    token = _TRACED.set(traced)
    try:
        result = tracer_of(task)(request["id"], request["args"], request["kwargs"], request)
    except Exception as error:  # noqa: BLE001 - a handler of the application's made the tracer give up
        raised = error
    finally:
        _TRACED.reset(token)
    if traced.broken is not None:
        raise traced.broken
    if body.execution is None:
        # What runs before the task itself went wrong.
        returned = getattr(getattr(result, "info", None), "retval", None)
        traced.record(raised or (returned if isinstance(returned, Exception) else None))
    return result


def fail(task: Any, error: Exception, request: dict[str, Any]) -> Any:
    """Have Celery tell that a message could not be delivered; returns what the tracer does."""
    token = _TRACED.set(_Failing(error))
    try:
        return tracer_of(task)(request["id"], request["args"], request["kwargs"], request)
    finally:
        _TRACED.reset(token)


def ignored(task: Any, request: dict[str, Any], nothing: Ignore) -> Any:
    """What a tracer returns for a message that is ignored; the application hears nothing of it."""
    info = trace.TraceInfo(states.IGNORED, nothing)
    info.handle_ignore(task, Context(request))
    return trace.trace_ok_t(ExceptionInfo(internal=True), info, 0.0, None)


def _verdict(execution: Execution) -> str:
    """What the tracer tells, by what the ledger says: returned for a success, raised for anything else."""
    ended = execution.ended
    if ended is None:
        raise Ignore
    if ended.ending in COMPLETE:
        return verdict_text(ended.ending, None)
    if ended.exception is not None:
        error = harmless(ended.exception, ended.hide)
        if ended.ending is Ending.FAILURE:
            raise error
        if is_retried(ended, execution.state):
            raise Retry(exc=cast("Exception", error), when=cast("Any", ended.delay.total_seconds()))
    raise Ignore


def is_retried(ended: Ended, state: RunState | None) -> bool:
    """Whether another attempt follows this one."""
    return ended.ending is Ending.RETRY and state is RunState.QUEUED


def verdict_text(ending: Ending, state: RunState | None) -> str:
    """The words of Flower's result column."""
    return f"{ending}; run {state}" if state else str(ending)
