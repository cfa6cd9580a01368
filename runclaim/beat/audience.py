"""
The audience of what runclaim sends: whether some worker consumes each queue that the upkeep and the phases travel.

A message in a queue that no worker consumes waits forever, without any sign.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from runclaim import logs
from runclaim.tasks.routes import queues

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.tasks.runtime import Runtime

logger: Final = logs.logger("runclaim.beat")

#: Workers that start together with beat are up by then.
_FIRST_SECONDS: Final = 60.0
_EVERY_SECONDS: Final = 600.0
_ANSWER_SECONDS: Final = 5.0


def watch(app: Celery, runtime: Runtime) -> None:
    """Check from time to time in a thread, and log which queues no worker consumes."""

    def work() -> None:
        pause = _FIRST_SECONDS
        while not threading.Event().wait(pause):
            pause = _EVERY_SECONDS
            try:
                tell(app, runtime)
            except Exception as error:  # noqa: BLE001 - some transports know no broadcast, and a broker may be away
                logger.debug("the workers did not tell their queues: %r", error)

    threading.Thread(target=work, name="runclaim-audience", daemon=True).start()


def tell(app: Celery, runtime: Runtime) -> None:
    """Warn of each queue that no worker consumes; of none where no worker answers, as without remote control."""
    answers = app.control.inspect(timeout=_ANSWER_SECONDS).active_queues()
    if not answers:
        return
    consumed = {queue["name"] for each in answers.values() for queue in each}
    for queue, tasks in queues(app, runtime).items():
        if queue not in consumed:
            logger.warning(
                "no worker consumes the queue %s, where %s wait;"
                " start a worker with -Q %s, or route them to another queue",
                queue,
                ", ".join(tasks),
                queue,
            )
