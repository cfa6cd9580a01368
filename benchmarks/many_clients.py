"""Clients that do the verbs of whole runs on connections of their own, from several processes that begin together."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Self

from runclaim.database import Database
from runclaim.keys import nonce
from runclaim.ledger.claim import ClaimRequest
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue
from tests.ledger import factories

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runclaim.ledger.fence import Claim

_PATIENCE: Final = timedelta(seconds=60)
_PROCESSES: Final = 4


@dataclass(frozen=True, slots=True)
class Load:
    """`connections` do runs in groups of `group` for `seconds`; each begins one every `every` seconds, or at once."""

    url: str
    connections: int
    seconds: float
    group: int = 1
    every: float = 0.0
    #: So often before it counts: the driver prepares a statement when it comes the sixth time.
    warm: int = 8


@dataclass(slots=True)
class Done:
    """What came of it; claims and whole cycles in milliseconds."""

    runs: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    claims: list[float] = field(default_factory=list)
    cycles: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Runs a second."""
        return self.runs / self.seconds

    def add(self, other: Done) -> None:
        """Count what another did at the same time."""
        self.runs += other.runs
        self.seconds = max(self.seconds, other.seconds)
        self.cpu += other.cpu
        self.claims += other.claims
        self.cycles += other.cycles


def cycle(database: Database, group: int) -> float:
    """Enqueue so many runs of three phases, claim them, complete each phase. Returns: milliseconds of the claim."""
    fresh = [factories.new_run(nonce()) for _ in range(group)]
    made = database.run(lambda conn: enqueue(conn, fresh), at_once=True)
    asked = [ClaimRequest(each.run_id, 0, nonce()) for each in made]
    began = time.perf_counter()
    claims = database.run(lambda conn: factories.take_all(conn, asked), at_once=True)
    took = time.perf_counter() - began
    while claims:
        claims = _completed(database, claims)
    return took * 1000


def _completed(database: Database, claims: Sequence[Claim]) -> list[Claim]:
    """The claims of the next phase. Raises: AssertionError if one was lost."""
    ended = [factories.completion(each) for each in claims]
    moved = database.run(lambda conn: complete(conn, ended), at_once=True)
    if len(moved) != len(claims):
        raise AssertionError(f"{len(claims) - len(moved)} of {len(claims)} claims were lost")
    return [each.claim for each in moved.values() if each.claim is not None]


class Clients:
    """The processes of one or several loads: warm when the block begins, and together from `go` on."""

    def __init__(self, *loads: Load) -> None:
        context: Any = multiprocessing.get_context("spawn")
        shares = [share for load in loads for share in _shared(load, max(1, _PROCESSES // len(loads)))]
        self._gate = context.Barrier(len(shares) + 1)
        self._told = context.Queue()
        self._processes = [
            context.Process(target=_process, args=(share, self._gate, self._told), daemon=True) for share in shares
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        self._gate.wait(200)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._gate.wait(20)
        for process in self._processes:
            process.join(20 if kind is None else 0)
            process.kill()

    def go(self) -> Done:
        """Begin, and wait for the end."""
        self._gate.wait(20)
        total = Done()
        for _ in self._processes:
            total.add(self._told.get(timeout=200))
        return total


def _shared(load: Load, processes: int) -> Iterator[Load]:
    """The load in parts, one for each process."""
    processes = min(processes, load.connections)
    for number in range(processes):
        many = load.connections // processes + (number < load.connections % processes)
        yield Load(load.url, many, load.seconds, load.group, load.every, load.warm)


def _process(load: Load, gate: Any, told: Any) -> None:
    with _databases(load) as databases, ThreadPoolExecutor(load.connections) as threads:
        list(threads.map(lambda each: [cycle(each, load.group) for _ in range(load.warm)], databases))
        gate.wait(200)
        gate.wait(200)
        cpu, total = time.process_time(), Done()
        for each in threads.map(lambda place: _work(databases[place], load, place), range(load.connections)):
            total.add(each)
        total.cpu = time.process_time() - cpu
        told.put(total)
        # The sessions stay until the block has ended.
        gate.wait(200)


@contextmanager
def _databases(load: Load) -> Iterator[list[Database]]:
    found = [Database(load.url, pool_size=1, patience=_PATIENCE) for _ in range(load.connections)]
    yield found
    for database in found:
        database.close()


def _work(database: Database, load: Load, place: int) -> Done:
    done, began = Done(), time.monotonic()
    # Spread, so that they do not come in step.
    due = began + load.every * place / load.connections
    while time.monotonic() < began + load.seconds:
        if load.every:
            time.sleep(max(0.0, due - time.monotonic()))
            due += load.every
        start = time.perf_counter()
        done.claims.append(cycle(database, load.group))
        done.cycles.append((time.perf_counter() - start) * 1000)
        done.runs += load.group
    done.seconds = time.monotonic() - began
    return done
