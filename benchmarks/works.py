"""
The four works, each for either side, with the check that every effect is there exactly once.

W1 one phase, W2 three; end to end (enqueued one by one while the worker runs) and drained (enqueued while it is
stopped, timed from its continuation). W3 enqueues alone, no worker. W4 latency of three phases at a low rate.
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from benchmarks.application import effects, many_effects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from subprocess import Popen

    import psycopg

    from benchmarks.application import Sides

_PATIENCE = 120.0


class Side:
    """
    One side of a comparison: how it enqueues and how it is known that it has ended.

    `servers` are the process ids of the ledger and the broker, whose CPU time counts as well.
    """

    def __init__(
        self,
        name: str,
        sides: Sides,
        worker: Popen[bytes],
        ledger: psycopg.Connection,
        folder: Path,
        servers: list[int],
    ) -> None:
        self.name, self.sides, self.worker, self.ledger, self.folder = name, sides, worker, ledger, folder
        self.is_durable = name == "runclaim"
        self._servers = servers

    def cpu(self) -> float:
        """Seconds of CPU so far: this process, the worker's and the servers', with what their children used."""
        found = 0.0
        for pid in (os.getpid(), self.worker.pid, *self._servers):
            ours = psutil.Process(pid)
            for process in (ours,) if pid == os.getpid() else (ours, *ours.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    found += times.user + times.system
        return found

    def enqueue(self, phases: int, number: int) -> None:
        """One run."""
        if self.is_durable:
            (self.sides.one if phases == 1 else self.sides.three).enqueue(number=number)
        elif phases == 1:
            self.sides.first.delay(number)
        else:
            self.sides.chain(number).apply_async()

    def enqueue_many(self, phases: int, numbers: Sequence[int]) -> None:
        """Many, as each side does it best: bare Celery has no bulk call."""
        if not self.is_durable:
            for number in numbers:
                self.enqueue(phases, number)
            return
        flow = self.sides.one if phases == 1 else self.sides.three
        for chunk in itertools.batched(numbers, 1000) if hasattr(itertools, "batched") else _batched(numbers, 1000):
            flow.enqueue_many([{"number": number} for number in chunk])

    def ended(self) -> bool:
        """Whether the ledger says that every run has ended; bare Celery keeps none."""
        if not self.is_durable:
            return True
        asked = "SELECT NOT EXISTS (SELECT FROM runclaim_runs WHERE state = %s)"
        return all(self.ledger.execute(asked, [state]).fetchone() == (True,) for state in ("queued", "running"))  # type: ignore[call-overload]

    def wait(self, wanted: int) -> None:
        """Until so many effects are there and the runs have ended. Raises: RuntimeError."""
        ends = time.monotonic() + _PATIENCE
        while many_effects(self.folder) < wanted or not self.ended():
            if time.monotonic() > ends or self.worker.poll() is not None:
                found = many_effects(self.folder)
                raise RuntimeError(f"{self.name}: {found} of {wanted} effects, worker {self.worker.poll()}")
            time.sleep(0.002)

    def stop(self) -> None:
        """Stop the worker's processes where they stand."""
        os.killpg(self.worker.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        os.killpg(self.worker.pid, signal.SIGCONT)


def _batched(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


class Works:
    """The works of one round; `numbers` gives every run a number of its own."""

    def __init__(self, numbers: itertools.count[int], scale: float) -> None:
        self._numbers, self._scale = numbers, scale

    def _take(self, many: float) -> list[int]:
        return list(itertools.islice(self._numbers, max(1, int(many * self._scale))))

    def warm(self, side: Side) -> None:
        """Imports, connections, prepared statements, and what each phase is known to take."""
        for phases in (1, 3):
            self._end_to_end(side, phases, self._take(60))

    def _checked(self, side: Side, phases: int, numbers: Sequence[int], begin: Callable[[], float]) -> float:
        """Seconds from what `begin` returns to the end of the runs. Raises: RuntimeError for a wrong effect."""
        before = many_effects(side.folder)
        began = begin()
        side.wait(before + len(numbers) * phases)
        seconds = time.monotonic() - began
        ours = set(numbers)
        found = sorted((run, phase) for run, phase, _ in effects(side.folder) if run in ours)
        if found != [(run, phase) for run in numbers for phase in range(phases)]:
            raise RuntimeError(f"{side.name}: {len(found)} effects of {len(numbers) * phases}, or some twice")
        return seconds

    def _end_to_end(self, side: Side, phases: int, numbers: Sequence[int]) -> float:
        def begin() -> float:
            began = time.monotonic()
            for number in numbers:
                side.enqueue(phases, number)
            return began

        return len(numbers) / self._checked(side, phases, numbers, begin)

    def _with_cpu(self, side: Side, label: str, phases: int, many: int) -> dict[str, float]:
        """Runs a second end to end, and what a run cost all processes together, which noise moves less."""
        numbers, before = self._take(many), side.cpu()
        figure = self._end_to_end(side, phases, numbers)
        return {label: figure, f"{label}, CPU ms a run": 1000 * (side.cpu() - before) / len(numbers)}

    def _drained(self, side: Side, phases: int, numbers: Sequence[int], *, bulk: bool) -> float:
        def begin() -> float:
            side.stop()
            try:
                if bulk:
                    side.enqueue_many(phases, numbers)
                else:
                    for number in numbers:
                        side.enqueue(phases, number)
                time.sleep(0.05)
            finally:
                began = time.monotonic()
                side.go_on()
            return began

        return len(numbers) / self._checked(side, phases, numbers, begin)

    def w1(self, side: Side) -> dict[str, float]:
        """Runs a second, single phase."""
        return {
            **self._with_cpu(side, "W1 end to end", 1, 600),
            "W1 drained": self._drained(side, 1, self._take(600), bulk=True),
        }

    def w2(self, side: Side) -> dict[str, float]:
        """Runs a second, three phases."""
        return {
            **self._with_cpu(side, "W2 end to end", 3, 400),
            "W2 drained": self._drained(side, 3, self._take(600), bulk=True),
            "W2 drained, enqueued singly": self._drained(side, 3, self._take(400), bulk=False),
        }

    def w3(self, side: Side) -> dict[str, float]:
        """Enqueues a second, with the worker stopped; what is enqueued is then done, and checked."""
        found: dict[str, float] = {}
        single, bulk = self._take(600), self._take(4000 if side.is_durable else 600)

        def begin() -> float:
            side.stop()
            try:
                began = time.monotonic()
                for number in single:
                    side.enqueue(1, number)
                found["W3 single"] = len(single) / (time.monotonic() - began)
                began = time.monotonic()
                side.enqueue_many(1, bulk)
                found["W3 bulk"] = len(bulk) / (time.monotonic() - began)
            finally:
                side.go_on()
            return began

        self._checked(side, 1, [*single, *bulk], begin)
        return found

    def w4(self, side: Side) -> dict[str, float]:
        """Milliseconds from the enqueue to the end of three phases, twenty runs a second; the median."""
        took = [self._latency(side, number) for number in self._take(30)]
        return {"W4 ms to the end": statistics.median(took)}

    def _latency(self, side: Side, number: int) -> float:
        before, began = many_effects(side.folder), time.monotonic()
        side.enqueue(3, number)
        while many_effects(side.folder) < before + 3 or not side.ended():
            time.sleep(0.0005)
        took = time.monotonic() - began
        time.sleep(max(0.0, 0.05 - took))
        return 1000 * took
