"""
The upkeep of the ledger: rescue, dispatch, deliver, purge and forget, as tasks that beat sends.

Each is harmless however often and however many at once: all of them are conditional writes in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runclaim import broker
from runclaim.tasks.request import UpkeepRequest
from runclaim.tasks.serializer import Serializer

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from runclaim.tasks.runtime import Runtime

DELIVER: Final = broker.DELIVER
RESCUE: Final = "runclaim.rescue"
DISPATCH: Final = "runclaim.dispatch"
PURGE: Final = "runclaim.purge"
FORGET: Final = "runclaim.forget"
TELL: Final = broker.TELL
ALL: Final = (RESCUE, DISPATCH, DELIVER, PURGE, FORGET, TELL)


def register(app: Celery, runtime: Runtime) -> None:
    """Make these tasks in the application's registry."""

    def rescue() -> int:
        """Give lapsed claims back, and publish them."""
        found = runtime.rescue()
        if found:
            runtime.dispatch()
        return found

    def dispatch() -> int:
        """Publish the runs that are due, or whose message seems lost."""
        return runtime.dispatch()

    def deliver() -> int:
        """Send the planned actions that are due."""
        return runtime.deliver()

    def purge() -> int:
        """Delete finished history past its retention."""
        return runtime.purge()

    def forget() -> int:
        """Delete dedup windows that have closed."""
        return runtime.forget()

    def tell() -> int:
        """Count what happened, and tell those who listen."""
        return runtime.tell()

    _task(app, RESCUE, rescue)
    _task(app, DISPATCH, dispatch)
    _task(app, DELIVER, deliver)
    _task(app, PURGE, purge)
    _task(app, FORGET, forget)
    _task(app, TELL, tell)


def _task(app: Celery, name: str, body: Callable[[], Any]) -> None:
    make: Any = app.task
    make(
        body,
        name=name,
        shared=False,
        Request=UpkeepRequest(),
        acks_late=False,
        ignore_result=True,
        serializer=Serializer(),
        max_retries=0,
        autoretry_for=(),
        of_runclaim=True,
        # Not None, so that the application's default does not hold: the upkeep is no work that floods anybody.
        rate_limit=0,
        # Bounds how many pile up while no worker is there, also for schedulers that keep no option of an entry. Long
        # enough to wait behind a backlog or a skewed clock: if each expired there, none would ever run.
        expires=3600,
    )
