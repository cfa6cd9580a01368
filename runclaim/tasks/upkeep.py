"""
The upkeep of the ledger: rescue, dispatch, deliver, purge and forget, as tasks that beat sends.

Each is harmless however often and however many at once: all of them are conditional writes in the ledger.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from runclaim import broker
from runclaim.flows.actions.sender import Sender
from runclaim.flows.upkeep.forget import forget_expired
from runclaim.flows.upkeep.purge import end_unused_subjects, purge_expired
from runclaim.flows.upkeep.rescue import rescue_lapsed
from runclaim.listeners.tell import tell as tell_listeners
from runclaim.tasks.limits import limit_of
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
#: Then sending makes room for phases that wait in the same queue.
_SEND_AT_MOST: Final = timedelta(seconds=30)
ALL: Final = (RESCUE, DISPATCH, DELIVER, PURGE, FORGET, TELL)


def register(app: Celery, runtime: Runtime) -> None:
    """Make these tasks in the application's registry."""

    def rescue() -> int:
        """Give lapsed claims back, and publish them."""
        rescued = rescue_lapsed(runtime.ledger.database, flows=runtime.flows)
        if rescued:
            runtime.dispatch()
        return rescued

    def dispatch() -> int:
        """Publish the runs that are due, or whose message seems lost."""
        return runtime.dispatch()

    def deliver() -> int:
        """Send the planned actions that are due."""
        return _send_actions(app, runtime)

    def purge() -> int:
        """Delete finished history past its retention."""
        return purge_history(runtime)

    def forget() -> int:
        """Delete dedup windows that have closed."""
        return forget_expired(runtime.ledger.database)

    def tell() -> int:
        """Count what happened, and tell those who listen."""
        return tell_listeners(
            runtime.ledger.database, runtime.ledger.listeners, stopping=lambda: runtime.role.is_stopping
        )

    _task(app, RESCUE, rescue)
    _task(app, DISPATCH, dispatch)
    _task(app, DELIVER, deliver)
    _task(app, PURGE, purge)
    _task(app, FORGET, forget)
    _task(app, TELL, tell)


def _send_actions(app: Celery, runtime: Runtime) -> int:
    """Send the planned actions that are due; returns how many were taken."""
    sender = Sender(
        database=runtime.ledger.database,
        actions=runtime.ledger.actions,
        stopping=lambda: runtime.role.is_stopping,
        count=runtime.count,
        outcomes=runtime.outcomes,
    )
    taken, some_are_left = sender.send_due(within=_SEND_AT_MOST, limit=limit_of(app, app.tasks[DELIVER]))
    if some_are_left and not runtime.role.is_stopping:
        runtime.broker.ring_actions(1)
    return taken


def purge_history(runtime: Runtime) -> int:
    """Delete finished history past its retention; returns how many runs went."""
    ledger = runtime.ledger
    gone = purge_expired(ledger.database, ledger.config, known=runtime.flows.values(), plain_names=ledger.plain_names)
    if not runtime.has_seen_subjects:
        end_unused_subjects(ledger.database)
        runtime.has_seen_subjects = True
    return gone


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
        # Not None, so that the application's default does not hold: the upkeep is rare and cheap.
        rate_limit=0,
        # Bounds how many pile up while no worker is there, even for schedulers that keep no option of an entry. Long
        # enough to wait behind a backlog or a skewed clock: if each expired there, none would ever run.
        expires=3600,
    )
