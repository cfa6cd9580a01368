"""
Everything at once: several workers, two beats, a caller that asks twice, and random faults from one seed.

RUNCLAIM_SOAK_SECONDS makes it longer than half a minute, RUNCLAIM_TEST_SEED repeats the choice of faults.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Self

import pytest

from runclaim.errors import LedgerUnavailable
from runclaim.states import RunState
from tests.faults.chaos import Chaos
from tests.faults.cutter import Cutter
from tests.faults.oracle import PHASES, started_more_than_once
from tests.harness import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim import Run
    from runclaim.servers import Server
    from tests.harness import Site

SECONDS = float(os.environ.get("RUNCLAIM_SOAK_SECONDS", "30"))
#: More than the faults of a soak can cost a phase.
BUDGET = {"max_attempts": 100}


@pytest.mark.timeout(300 + 3 * SECONDS)
def test_a_soak_of_random_faults_loses_and_doubles_nothing(
    make_site: Callable[..., Site], valkey_server: Server, private_postgres: Server, capfd: pytest.CaptureFixture[str]
):
    seed = int(os.environ.get("RUNCLAIM_TEST_SEED") or random.randrange(1 << 32))
    site = make_site(
        private_postgres.url,
        phases={"first": BUDGET, "second": BUDGET | {"queue": "apart"}, "third": BUDGET | {"queue": "apart"}},
    )
    with Cutter(private_postgres.url) as cutter:
        site.told["database_url"] = cutter.url
        chaos = Chaos(site, cache=valkey_server, postgres=private_postgres, cutter=cutter, seed=seed)
        with Caller(site, seed) as caller:
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                chaos.strike()
            chaos.end()
        runs = caller.acknowledged
        unfinished = lambda: [run for run in runs if run.state is not RunState.SUCCEEDED]  # noqa: E731
        with contextlib.suppress(AssertionError):
            until(lambda: not unfinished(), "every run to end", within=150 + SECONDS)
    lost, doubled = unfinished(), site.doubled()
    with capfd.disabled():
        sys.stdout.write(f"\n{report(site, chaos, seed, len(runs), lost=len(lost), doubled=len(doubled))}\n")

    assert ([], []) == (lost, doubled), f"RUNCLAIM_TEST_SEED={seed}\n{site.story()}"
    assert Counter(site.rows()) == Counter((run_name, phase) for run_name in caller.names for phase in PHASES)
    assert len({run.id for run in runs}) == len(caller.names)
    assert sum(chaos.landed.values()) > 0, "no fault landed: the soak proves nothing"


class Caller:
    """Enqueues all the while, every third key twice; a context manager that ends with every key acknowledged."""

    def __init__(self, site: Site, seed: int) -> None:
        self.acknowledged: list[Run] = []
        self.names: list[str] = []
        self._site, self._random, self._stop = site, random.Random(seed + 1), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while not self._stop.wait(0.03):
            name = f"run{len(self.names)}"
            first, second = (f"take {self._random.uniform(0, 0.4):.3f}" for _ in range(2))
            again = self._random.random() < 1 / 3
            self._enqueue(name, first, second)
            if again:
                self._enqueue(name, first, second)
            self.names.append(name)

    def _enqueue(self, name: str, first: str, second: str) -> None:
        while True:  # as somebody does who was told nothing
            with contextlib.suppress(LedgerUnavailable):
                self.acknowledged.append(self._site.enqueue(name, first=first, second=second))
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the caller hangs in an enqueue"


def report(site: Site, chaos: Chaos, seed: int, calls: int, *, lost: int, doubled: int) -> str:
    """What was done and what came of it."""
    lines = [f"soak: {SECONDS:g} s, RUNCLAIM_TEST_SEED={seed}", f"{'fault':32}{'armed':>6}{'fired':>6}{'landed':>7}"]
    lines += [
        f"{kind:32}{chaos.armed[kind]:6}{chaos.fired[kind]:6}{chaos.landed[kind]:7}"
        for kind in chaos.kinds
        if chaos.armed[kind]
    ]
    lines.append(
        f"{calls} enqueues acknowledged, {len(site.starts())} bodies started, {started_more_than_once(site)} of them"
        f" again, {site.counter('duplicates_refused')} duplicates refused: {lost} lost, {doubled} doubled"
    )
    return "\n".join(lines)
