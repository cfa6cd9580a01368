"""Celery's side of phases without a broker or a worker: messages are given to the tasks as Celery's pools do."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import Celery, Task, signals
from celery.app import trace

from runclaim import Backoff, Runclaim, RunState
from tests.harness.bench import NO_WAIT
from tests.harness.ledgers import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runclaim import Context, Run

AT_ONCE = Backoff(first=NO_WAIT)


@dataclass(frozen=True)
class Order:
    name: str


class Shop:
    """A worker's process in small: messages are given to the tasks as Celery's pools do."""

    def __init__(self, url: str, task_class: type[Task[Any, Any]] | str = Task, **phases: Any) -> None:
        self.app = Celery("shop", broker="memory://", set_as_current=False, task_cls=task_class)
        self.runs = Runclaim(self.app, database_url=url, grouped=True)
        migrate(self.runs.ledger.database)
        self.flow = self.runs.flow("order", Order, key="{name}")
        for name, body in phases.items():
            self.phase(name, body)

    def phase(self, name: str, body: Callable[[Context[Order]], Any], **options: Any) -> None:
        self.flow.phase(name=name, **{"max_attempts": 2, "backoff": AT_ONCE} | options)(body)
        # It is known to be quick, so that groups form.
        self.runs._runtime.pace.note(f"order.{name}", 0.0)

    def enqueue(self, *names: str) -> list[Run]:
        return self.flow.enqueue_many([Order(name) for name in names])

    def deliver(self, *runs: Run, task_id: str = "message", **headers: Any) -> Any:
        """One message that names the runs as they stand; returns what Celery's pool would be told."""
        views = [run.view for run in runs]
        task = self.app.tasks[f"order.{views[0].phase}"]
        named = [(view.id, view.fence) for view in views]
        request = {"id": task_id, "task": task.name, "hostname": "node", "delivery_info": {}} | headers
        return trace.trace_task(
            task, task_id, named[0] if len(named) == 1 else ([*map(list, named)],), {}, request, app=self.app
        )

    def sent(self) -> list[str]:
        """The ids of the runs that messages named since the last look; of other tests in this process, too."""
        self.runs._runtime.broker.flush()
        found: list[str] = []
        with self.app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
            while queue.qsize():
                args = queue.get_nowait().payload[0]
                found += [args[0]] if isinstance(args[0], str) else [run_id for run_id, _ in args[0]]
        return found

    def finish(self, *runs: Run) -> None:
        for run in runs:
            for _ in range(9):
                if run.state is RunState.QUEUED:
                    self.deliver(run, task_id=f"again-{run.id}")


@contextmanager
def listening(**receivers: Callable[..., None]) -> Iterator[None]:
    """Receivers of Celery's signals, by their names without `task_`, while the block runs."""
    for name, receiver in receivers.items():
        getattr(signals, f"task_{name}").connect(receiver, weak=False)
    try:
        yield
    finally:
        for name, receiver in receivers.items():
            getattr(signals, f"task_{name}").disconnect(receiver)


def quiet(_ctx: Any) -> None:
    """A body that does nothing."""


def fails(name: str) -> Callable[[Context[Order]], None]:
    def body(ctx: Context[Order]) -> None:
        if ctx.input.name == name:
            raise KeyError(name)

    return body
