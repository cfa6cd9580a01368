"""
The four works, each for any side, with the check that every effect is there exactly once.

W1 one phase, W2 three; end to end (enqueued one by one while the worker runs) and drained (enqueued while it is
stopped, timed from its continuation). W3 enqueues alone, no worker. W4 latency of three phases at a low rate.
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.effects import effects, many_effects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.sides import Side


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
        numbers, before = self._take(many), side.worker.cpu()
        figure = self._end_to_end(side, phases, numbers)
        return {label: figure, f"{label}, CPU ms a run": 1000 * (side.worker.cpu() - before) / len(numbers)}

    def _drained(self, side: Side, phases: int, numbers: Sequence[int], *, bulk: bool) -> float:
        def begin() -> float:
            side.worker.stop()
            try:
                if bulk:
                    side.enqueue_many(phases, numbers)
                else:
                    for number in numbers:
                        side.enqueue(phases, number)
                time.sleep(0.05)
            finally:
                began = time.monotonic()
                side.worker.go_on()
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
        single, bulk = self._take(600), self._take(4000 if side.has_bulk else 600)

        def begin() -> float:
            side.worker.stop()
            try:
                began = time.monotonic()
                for number in single:
                    side.enqueue(1, number)
                found["W3 single"] = len(single) / (time.monotonic() - began)
                began = time.monotonic()
                side.enqueue_many(1, bulk)
                found["W3 bulk"] = len(bulk) / (time.monotonic() - began)
            finally:
                side.worker.go_on()
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
