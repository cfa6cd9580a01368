"""
Celery's request for runclaim's tasks: what a worker's main process knows of a message and of the child that runs it.

The class is made when the worker asks for it: until then the application may choose its Task class, and so its Request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from kombu.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from runclaim.tasks.runtime import Runtime

#: How Celery says that a pool child died: by itself, by a hard time limit, by `revoke(terminate=True)`.
_DEATHS: Final = (WorkerLostError, TimeLimitExceeded, Terminated)


class UpkeepRequest:
    """The attribute `Request` of a task: the application's own Request, but for the limits that a message brings."""

    def __get__(self, task: Any, owner: type) -> type:
        """The class, created again."""
        bases = (vars(each)["Request"] for each in owner.__mro__ if "Request" in vars(each))
        return self._derive(symbol_by_name(next(each for each in bases if each is not self)))

    def _derive(self, parent: Any) -> type:
        return _without_limits(parent)


class PhaseRequest(UpkeepRequest):
    """The same for a phase's task, which also hears that a pool child died and gives its claims back."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def _derive(self, parent: Any) -> type:
        return _with_deaths(_without_limits(parent), self._runtime)


def _without_limits(parent: Any) -> type:
    class Unlimited(parent):  # type: ignore[misc]
        @property
        def time_limits(self) -> tuple[float | None, float | None]:
            """The task's own limits, as remote control has set them; who writes to the broker could kill bodies."""
            return (self.task.time_limit, self.task.soft_time_limit)

        @time_limits.setter
        def time_limits(self, _of_the_message: Any) -> None:
            """Leave them out."""

    return Unlimited


def _with_deaths(parent: Any, runtime: Runtime) -> type:
    class Mourning(parent):  # type: ignore[misc]
        def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
            error = getattr(exc_info.exception, "exc", exc_info.exception)
            if isinstance(error, _DEATHS):
                runtime.give_back(f"{self.hostname}:{self.worker_pid}")
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

        def cancel(self, *args: Any, **kwargs: Any) -> Any:
            # A cold shutdown, which ends its children before it says so.
            runtime.flags.cut_off()
            return super().cancel(*args, **kwargs)

    return Mourning
