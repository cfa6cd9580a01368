"""
What the application puts into a message's headers when it sends a task, such as a tenant or a trace.

A run is sent many times, by doorbells, dispatch and retries, in contexts that are not its enqueuer's. So Celery's
sending is rehearsed once, without a message, where the run is enqueued; what the application's `apply_async` and the
receivers of `before_task_publish` add to it is kept with the run and is in the request of every attempt of every phase.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from celery import signals
from celery.app.task import Context
from celery.exceptions import QueueNotFound

from runclaim.secrets import redact

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.ledger.new_run import NewRun

#: What Celery itself writes into a message or its request; everything else was put there by the application.
CELERYS: Final = frozenset({*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"}) - {"headers"}
_WATCHED: Final = (signals.before_task_publish, signals.after_task_publish)


class _Nobody:
    """A producer that sends nothing and remembers the headers of the first message."""

    serializer = None

    def __init__(self) -> None:
        self.headers: dict[str, Any] | None = None
        self.connection = self

    def _reraise_as_library_errors(self) -> Any:
        return nullcontext()

    def publish(self, _body: Any, *, headers: dict[str, Any] | None = None, **_options: Any) -> None:
        self.headers = self.headers or headers


def headers_of(app: Celery, new: NewRun) -> dict[str, Any] | None:
    """
    The headers that the application adds to the run's task, here and now; `None` where it has no say in them.

    Raises: whatever the application's own `apply_async` raises, as it does for tasks of its own.
    """
    task: Any = app.tasks[f"{new.flow}.{new.phases[0]}"]
    # Celery's settings are asked last: that takes longer than the rest, and every run comes by here.
    if not (any(each.receivers for each in _WATCHED) or _is_sent_its_own_way(task)) or app.conf.task_always_eager:
        return None
    nobody = _Nobody()
    options = {} if new.queue is None else {"queue": new.queue}
    try:
        task.apply_async(
            args=(new.run_id, 0),
            producer=nobody,
            argsrepr=redact(new.key.text),
            kwargsrepr="{}",
            retry=False,
            ignore_result=True,
            **options,
        )
    except QueueNotFound:
        # Told when its message is sent.
        return {}
    return {name: value for name, value in (nobody.headers or {}).items() if name not in CELERYS}


def _is_sent_its_own_way(task: Any) -> bool:
    own = type(task).apply_async
    return not getattr(own, "__module__", "").startswith("celery.") or hasattr(own, "__wrapped__")
