"""Beat's part: entries beside the application's own schedule. Any number of beats is harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runclaim.tasks import upkeep

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from runclaim.config import Config


def schedule(app: Celery, config: Callable[[], Config]) -> None:
    """Add the upkeep to the app's schedule once the app is complete; entries and settings of the app stay."""

    def add(sender: Any, **_kwargs: Any) -> None:
        settings = config()
        for name, every in (
            (upkeep.RESCUE, settings.rescue_every),
            (upkeep.DISPATCH, settings.dispatch_every),
            (upkeep.DELIVER, settings.deliver_every),
            (upkeep.PURGE, settings.purge_every),
            (upkeep.FORGET, settings.forget_every),
            (upkeep.TELL, settings.tell_every),
        ):
            seconds = every.total_seconds()
            sender.add_periodic_task(seconds, sender.tasks[name].s(), name=name)

    if getattr(app, "finalized", False):
        add(app)
    else:
        app.on_after_finalize.connect(add, weak=False)
