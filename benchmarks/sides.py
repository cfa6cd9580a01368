"""The sides of the comparison: how each enqueues, how it is known that its runs have ended, and what its worker is."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from benchmarks import floor
from benchmarks.application import Durable, bare_celery, celery_with_results
from benchmarks.effects import many_effects
from benchmarks.worker import started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg import Connection

    from benchmarks.application import Chained, Place
    from benchmarks.worker import Worker

_PATIENCE: Final = 120.0
#: As many runs as a bulk call takes; a side without one enqueues them one by one.
_BULK: Final = 1000


class Side(ABC):
    """One side; `connection` is to the ledger's PostgreSQL and commits each statement."""

    name: ClassVar[str]
    has_bulk: ClassVar[bool] = True
    #: Whether its worker looks for work all the time, so that it has to stand still while others are measured.
    polls: ClassVar[bool] = False
    worker: Worker

    def __init__(self, place: Place, connection: Connection) -> None:
        self.place, self.connection, self.folder = place, connection, Path(place.folder)

    @abstractmethod
    def enqueue(self, phases: int, number: int) -> None:
        """One run."""

    @abstractmethod
    def enqueue_many(self, phases: int, numbers: Sequence[int]) -> None:
        """Many, as this side does it best."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether all runs have ended, as far as this side keeps it. Asked when their effects are there."""

    def command(self) -> list[str]:
        """What starts the worker: Celery's prefork pool with two processes."""
        worker = [sys.executable, "-m", "celery", "-A", f"benchmarks.application:{self.name}", "worker"]
        return [*worker, "-Q", self.name, "-n", f"{self.name}@bench", "-l", "WARNING", "-P", "prefork", "-c", "2"]

    @contextmanager
    def up(self) -> Iterator[Side]:
        """The side with its worker."""
        told = self.command(), self.place.environment(), self.folder, self.place.servers
        with started(self.name, *told) as self.worker:
            if self.polls:
                self.worker.stop()
            yield self

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While this side is the one that is measured."""
        if self.polls:
            self.worker.go_on()
        try:
            yield
        finally:
            if self.polls:
                self.worker.stop()

    def wait(self, wanted: int) -> None:
        """Until so many effects are there and the runs have ended. Raises: RuntimeError."""
        ends = time.monotonic() + _PATIENCE
        while many_effects(self.folder) < wanted or not self.ended():
            self.worker.require_up()
            if time.monotonic() > ends:
                raise RuntimeError(f"{self.name}: {many_effects(self.folder)} of {wanted} effects")
            time.sleep(0.002)


class Bare(Side):
    """`celery.chain` without results: what is lost is lost."""

    name = "bare"
    has_bulk = False

    def __init__(self, place: Place, connection: Connection) -> None:
        super().__init__(place, connection)
        self.chained = self.tasks()

    def tasks(self) -> Chained:
        """The application."""
        return bare_celery(self.place)

    def enqueue(self, phases: int, number: int) -> None:
        """A task, or a chain of three."""
        if phases == 1:
            self.chained.first.delay(number)
        else:
            self.chained.chain(number).apply_async()

    def enqueue_many(self, phases: int, numbers: Sequence[int]) -> None:
        """Celery has no bulk call."""
        for number in numbers:
            self.enqueue(phases, number)

    def ended(self) -> bool:
        """Nothing is kept, so the effects say it."""
        return True


class WithResults(Bare):
    """The same with each task's result in PostgreSQL, by Celery's SQLAlchemy backend."""

    name = "results"

    def __init__(self, place: Place, connection: Connection) -> None:
        super().__init__(place, connection)
        _ = self.chained.app.backend.ResultSession().close()  # makes its tables
        #: The rows up to here are known; how many more are to come.
        self._known = self._owed = 0

    def tasks(self) -> Chained:
        """The application."""
        return celery_with_results(self.place)

    def enqueue(self, phases: int, number: int) -> None:
        """As bare Celery; a result each."""
        super().enqueue(phases, number)
        self._owed += phases

    def ended(self) -> bool:
        """Whether every result is a row."""
        asked = "SELECT count(*), max(id) FROM celery_taskmeta WHERE id > %s AND status = 'SUCCESS'"
        many, last = self.connection.execute(asked, [self._known]).fetchone() or (0, None)
        if many < self._owed:
            return False
        self._known, self._owed = last or self._known, 0
        return True


class Ours(Side):
    """Runclaim: the same bodies as flows."""

    name = "runclaim"

    def __init__(self, place: Place, connection: Connection) -> None:
        super().__init__(place, connection)
        self._durable = Durable(place)

    def enqueue(self, phases: int, number: int) -> None:
        """A run in a transaction of its own."""
        (self._durable.one if phases == 1 else self._durable.three).enqueue(number=number)

    def enqueue_many(self, phases: int, numbers: Sequence[int]) -> None:
        """A thousand runs a transaction."""
        flow = self._durable.one if phases == 1 else self._durable.three
        for start in range(0, len(numbers), _BULK):
            flow.enqueue_many([{"number": number} for number in numbers[start : start + _BULK]])

    def ended(self) -> bool:
        """Whether the ledger has no live run left; its partial indexes answer."""
        asked = "SELECT NOT EXISTS (SELECT FROM runclaim_runs WHERE state = %s)"
        return all(self.connection.execute(asked, [state]).fetchone() == (True,) for state in ("queued", "running"))


class Floor(Side):
    """Raw psycopg, a run at a time."""

    name = "floor"
    polls = True
    size: ClassVar[int] = 1

    def __init__(self, place: Place, connection: Connection) -> None:
        super().__init__(place, connection)
        self._connection = floor.connect(place.database_url, self.name)
        floor.make(self._connection, self.name)

    def enqueue(self, phases: int, number: int) -> None:
        """One INSERT."""
        self._connection.execute(floor.ENQUEUE, (number, phases))

    def enqueue_many(self, phases: int, numbers: Sequence[int]) -> None:
        """One INSERT for a thousand."""
        for start in range(0, len(numbers), _BULK):
            self._connection.execute(floor.ENQUEUE_MANY, (numbers[start : start + _BULK], phases))

    def ended(self) -> bool:
        """Whether no live run is left."""
        return self._connection.execute(floor.LIVE).fetchone() == (False,)

    def command(self) -> list[str]:
        """No Celery."""
        told = self.place.database_url, self.name, self.place.folder, str(self.size)
        return [sys.executable, "-m", "benchmarks.floor", *told]


class FloorInBatches(Floor):
    """Raw psycopg, a hundred runs a claim and a commit."""

    name = "batches"
    size = 100


SIDES: Final[dict[str, type[Side]]] = {side.name: side for side in (Bare, WithResults, Ours, Floor, FloorInBatches)}
