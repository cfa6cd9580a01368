"""Beat's part: entries in addition to the application's own schedule. Running several beats is harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery import signals

from runclaim import logs
from runclaim.beat import audience
from runclaim.tasks import upkeep

if TYPE_CHECKING:
    from datetime import timedelta

    from celery import Celery

    from runclaim.config import Config
    from runclaim.tasks.runtime import Runtime

logger: Final = logs.logger("runclaim.beat")


def attach(app: Celery, runtime: Runtime) -> None:
    """Attach to every beat of the app: the upkeep's entries, and who listens to what is sent."""

    def add(sender: Any, **_kwargs: Any) -> None:
        _add(sender, _entries(runtime.ledger.config))

    def starts(sender: Any = None, **_kwargs: Any) -> None:
        if sender.app is app:
            _add_again(app, sender.scheduler, runtime.ledger.config)
            audience.watch(app, runtime)

    if getattr(app, "finalized", False):
        add(app)
    else:
        app.on_after_finalize.connect(add, weak=False)
    signals.beat_init.connect(starts, weak=False)


def _entries(config: Config) -> dict[str, timedelta]:
    return {
        upkeep.RESCUE: config.rescue_every,
        upkeep.DISPATCH: config.dispatch_every,
        upkeep.DELIVER: config.deliver_every,
        upkeep.PURGE: config.purge_every,
        upkeep.FORGET: config.forget_every,
        upkeep.TELL: config.tell_every,
    }


def _add(app: Celery, entries: dict[str, timedelta]) -> None:
    for name, every in entries.items():
        task: Any = app.tasks[name]
        app.add_periodic_task(every.total_seconds(), task.s(), name=name)


def _add_again(app: Celery, scheduler: Any, config: Config) -> None:
    """Assigning `beat_schedule` after the app was finalized removes what was added by then."""
    entries = _entries(config)
    missing = {name: every for name, every in entries.items() if name not in app.conf.beat_schedule}
    if missing:
        _add(app, missing)
        scheduler.update_from_dict({name: app.conf.beat_schedule[name] for name in missing})
        logger.warning(
            "beat_schedule was assigned after the application was complete, without %s; they were added again."
            " Assign it in on_after_configure, or update it instead",
            ", ".join(missing),
        )
