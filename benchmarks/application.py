"""
The Celery applications: tasks in a chain, without results and with them in the database, and the same bodies as flows.

Each has an application and a queue of its own, so no side's worker carries another's. Every setting is Celery's and
runclaim's default, but for the queues' names.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from celery import Celery

from benchmarks.effects import effect
from runclaim import Context, Runclaim

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where a worker's process finds its `Place`.
_VARIABLE: Final = "RUNCLAIM_BENCH"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one broker's rounds are measured; `servers` are the process ids of the ledger and the broker."""

    broker: str
    database_url: str
    folder: str
    servers: tuple[int, ...]

    def environment(self) -> Mapping[str, str]:
        """What tells a worker's process."""
        return os.environ | {_VARIABLE: json.dumps(asdict(self))}


@dataclass(frozen=True, slots=True)
class Work:
    """The input of a run."""

    number: int


class Chained:
    """Three tasks in a chain; `results` names the result backend, none ignores results."""

    def __init__(self, name: str, place: Place, *, results: str | None = None) -> None:
        self.app = Celery(name, broker=place.broker, backend=results)
        self.app.conf.update(
            task_ignore_result=results is None, task_default_queue=name, worker_hijack_root_logger=False
        )
        self.first, self.second, self.third = (self._task(Path(place.folder), phase) for phase in range(3))

    def chain(self, number: int) -> Any:
        """Three phases as Celery has them."""
        return self.first.s(number) | self.second.s() | self.third.s()

    def _task(self, folder: Path, phase: int) -> Any:
        def body(number: int) -> int:
            return effect(folder, number, phase)

        make: Any = self.app.task
        return make(name=f"{self.app.main}.{phase}", shared=False)(body)


class Durable:
    """The same bodies as flows of one and of three phases."""

    def __init__(self, place: Place) -> None:
        self.app = Celery("runclaim", broker=place.broker)
        self.app.conf.update(task_ignore_result=True, task_default_queue="runclaim", worker_hijack_root_logger=False)
        self.runs = Runclaim(self.app, database_url=place.database_url)
        self.one = self.runs.flow("one", Work, key="{number}")
        self.three = self.runs.flow("three", Work, key="{number}")
        for flow, names in ((self.one, ("only",)), (self.three, ("a", "b", "c"))):
            for phase, name in enumerate(names):
                flow.phase(name=name)(_body(Path(place.folder), phase))


def _body(folder: Path, phase: int) -> Any:
    def body(ctx: Context[Work]) -> int:
        return effect(folder, ctx.input.number, phase)

    return body


def bare_celery(place: Place) -> Chained:
    """Results ignored: nothing of a run is kept."""
    return Chained("bare", place)


def celery_with_results(place: Place) -> Chained:
    """Each result a row in the ledger's PostgreSQL; where the chain stands is in the broker."""
    return Chained("results", place, results=f"db+{place.database_url}")


if _VARIABLE in os.environ:
    _place = Place(**json.loads(os.environ[_VARIABLE]))
    bare, results, runclaim = bare_celery(_place).app, celery_with_results(_place).app, Durable(_place).app
