"""
The worker's part: what has to hold before a worker starts, and what it tells its pool children.

Attached by bootsteps and signals, Celery's own doors; nothing is patched but what `result_pipes` says of itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from celery import bootsteps, signals

from runclaim import logs
from runclaim.connections import missing_client
from runclaim.errors import LedgerUnavailable, RunclaimError
from runclaim.ledger.doors.registered_flows import SEEN_EVERY
from runclaim.worker import alive, flower, result_pipes, unknown_tasks
from runclaim.worker.checks import notices, refusals

if TYPE_CHECKING:
    from celery import Celery

    from runclaim.flows.fail_open.local_records import LocalRecords
    from runclaim.tasks.runtime import Runtime

logger: Final = logs.logger("runclaim.worker")


def attach(app: Celery, runtime: Runtime) -> None:
    """Attach to every worker of the app."""
    app.steps["worker"].add(_start_check(app, runtime))
    app.steps["consumer"].add(_event_flag(runtime))
    app.steps["consumer"].add(_reconciling(runtime))
    app.steps["consumer"].add(_seen(runtime))
    alive.attach(app, lambda: runtime.ledger.config)
    flower.attach(app, runtime)
    unknown_tasks.attach(app, runtime)
    result_pipes.attach(app)

    def initializing(instance: Any = None, **_kwargs: Any) -> None:
        # Before Celery's own steps, which would end in a traceback.
        if getattr(instance, "app", None) is app and (missing := missing_client(app)) is not None:
            raise SystemExit(f"runclaim: this worker cannot start.\n  - {missing}")

    def shutting_down(**_kwargs: Any) -> None:
        runtime.flags.stopping = True

    def process_starts(**_kwargs: Any) -> None:
        runtime.role.pool_starts()

    def process_ends(**_kwargs: Any) -> None:
        runtime.close()

    signals.celeryd_init.connect(initializing, weak=False)
    signals.worker_shutting_down.connect(shutting_down, weak=False)
    signals.worker_process_init.connect(process_starts, weak=False)
    signals.worker_process_shutdown.connect(process_ends, weak=False)
    signals.worker_shutdown.connect(process_ends, weak=False)


def _start_check(app: Celery, runtime: Runtime) -> type:
    class RunclaimStart(bootsteps.StartStopStep):
        """Refuses to start where the promise could not be kept; hears of every way in which a worker stops."""

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            if found := refusals(app, runtime):
                raise SystemExit("runclaim: this worker cannot start.\n" + "\n".join(f"  - {each}" for each in found))
            for notice in notices(runtime):
                logger.warning("%s", notice)
            runtime.role.worker_starts()
            try:
                runtime.register_flows()
                runtime.add_listeners()
            except LedgerUnavailable:
                # It may come up later; until then every run waits.
                logger.warning("the ledger cannot be reached: new flows of this worker are not registered for the API")
            except RunclaimError as refused:
                raise SystemExit(f"runclaim: this worker cannot start.\n  - {refused}") from refused

        def start(self, parent: Any) -> None:
            """Nothing more to do."""

        def close(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
            # Remote control and SIGHUP end a worker without the signal `worker_shutting_down`.
            runtime.flags.stopping = True

    return RunclaimStart


def _event_flag(runtime: Runtime) -> type:
    class RunclaimEvents(bootsteps.StartStopStep):
        """Mirrors for the pool children whether task events are wanted; Flower switches them on at any time."""

        requires = ("celery.worker.consumer.events:Events",)

        def start(self, parent: Any) -> None:
            def mirror() -> None:
                dispatcher = parent.event_dispatcher
                groups = getattr(dispatcher, "groups", None)
                runtime.flags.events = bool(
                    dispatcher is not None and dispatcher.enabled and (not groups or "task" in groups)
                )

            mirror()
            parent.timer.call_repeatedly(1.0, mirror)

    return RunclaimEvents


def _reconciling(runtime: Runtime) -> type:
    class RunclaimReconcile(bootsteps.StartStopStep):
        """Tells the ledger what this machine did without it, once it is back."""

        requires = ("celery.worker.consumer.events:Events",)

        def start(self, parent: Any) -> None:
            if runtime.open_flows is not None:
                backlog = runtime.open_flows.backlog
                names = [flow.name for flow in runtime.flows.values() if flow.fail_open]
                _say_where_nothing_opens(backlog.records, names)
                backlog.reconcile_repeatedly(parent.timer.call_repeatedly)

    return RunclaimReconcile


def _seen(runtime: Runtime) -> type:
    class RunclaimSeen(bootsteps.StartStopStep):
        """Says now and then that this release is alive, in a thread: the ledger may take its time to answer."""

        requires = ("celery.worker.consumer.events:Events",)

        def start(self, parent: Any) -> None:
            parent.timer.call_repeatedly(SEEN_EVERY, runtime.register_flows_soon)

    return RunclaimSeen


def _say_where_nothing_opens(records: LocalRecords, names: list[str]) -> None:
    try:
        records.check()
    except OSError as refused:
        logger.error(  # noqa: TRY400 - its text is enough
            "%s fail closed in this worker: no local record can be written in %s (%s). Set RUNCLAIM_FAIL_OPEN_FOLDER"
            " to a folder that it may write, on a disk that outlives it",
            ", ".join(names),
            records.folder,
            refused,
        )
