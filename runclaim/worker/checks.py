"""What a worker refuses to start with: settings under which the promise would be empty; and what it warns of."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import QueueNotFound

from runclaim.tasks import upkeep
from runclaim.tasks.limits import limit_of
from runclaim.tasks.names import taken_names
from runclaim.tasks.routes import queue_of
from runclaim.tasks.serializer import PICKLES, is_readable, serializer

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.config import Config
    from runclaim.tasks.runtime import Runtime


def refusals(app: Celery, runtime: Runtime) -> list[str]:
    """Each reason not to start, as a sentence that says what to do; empty when there is none."""
    return [
        *_contents(app),
        *_green(runtime.ledger.config),
        *taken_names(app, runtime),
        *_no_queue(app),
        *_long_actions(app, runtime),
    ]


def notices(runtime: Runtime) -> list[str]:
    """What a worker starts with although people should know of it."""
    found = []
    if runtime.ledger.config.log_format == "json" and signals.setup_logging.receivers:
        found.append(
            "log_format=json has no effect: the application sets up its own logging (signal setup_logging)."
            " Give its handlers the formatter runclaim.logs.JsonFormatter"
        )
    return found


def _contents(app: Celery) -> list[str]:
    found = []
    for setting in ("accept_content", "result_accept_content"):
        accepted = set(app.conf.get(setting) or ())
        if accepted & PICKLES:
            rest = sorted(accepted - PICKLES) or ["json"]
            found.append(
                f"{setting} accepts pickle: anyone who can write to the broker could run code here."
                f" Set app.conf.{setting} = {rest}"
            )
    if not found and not is_readable(app):
        name = serializer(app)
        found.append(
            f"accept_content is {sorted(app.conf.accept_content or ())} and runclaim's messages are {name}, as"
            f" task_serializer says: this worker could not read them. Add {name!r} to app.conf.accept_content, or set"
            " app.conf.task_serializer to one that is accepted"
        )
    return found


def _green(config: Config) -> list[str]:
    if not config.database_url.startswith("sqlite") or (pool := _green_pool()) is None:
        return []
    said = f"the pool is {pool} and the ledger is SQLite, which blocks every greenlet while it waits."
    return [f"{said} Use PostgreSQL, or the prefork or threads pool"]


def _green_pool() -> str | None:
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("socket"):
        return "gevent"
    return "eventlet" if eventlet is not None and eventlet.is_monkey_patched("socket") else None


def _no_queue(app: Celery) -> list[str]:
    try:
        for name in upkeep.ALL:
            queue_of(app, name)
    except QueueNotFound as error:
        what = 'Route it to one of yours: task_routes = {"runclaim.*": {"queue": …}}'
        return [f"the upkeep has no queue, so beat cannot send it: {error.args[0]}. {what}"]
    except Exception as error:  # noqa: BLE001 - a router is the application's own
        return [f"a router of the application raises {error!r} for {name}; make it return None for tasks not its own"]
    return []


def _long_actions(app: Celery, runtime: Runtime) -> list[str]:
    task: Any = app.tasks[upkeep.DELIVER]
    limit = limit_of(app, task)
    actions = runtime.ledger.actions.values()
    long = [each.kind for each in actions if limit is not None and each.options.max_duration > limit]
    if limit is None or not long:
        return []
    cut = (
        f"the task {upkeep.DELIVER} may take {limit.total_seconds():g} s, but sending {', '.join(long)} longer: Celery"
    )
    given = f'task_annotations = {{"{upkeep.DELIVER}": {{"time_limit": …, "soft_time_limit": …}}}}'
    return [f"{cut} would stop it halfway. Give those actions a shorter max_duration, or set {given}"]
