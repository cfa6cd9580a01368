"""Some Celery workers that are stopped, given work, and let go on."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import psutil

from benchmarks.effects import effects, many_effects
from benchmarks.slots_application import PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

_ROOT: Final = Path(__file__).resolve().parents[1]
_PATIENCE: Final = 120.0
_LIVE: Final = "SELECT EXISTS (SELECT FROM runclaim_runs WHERE finished_at IS NULL)"
_SESSIONS: Final = "SELECT client_port FROM pg_stat_activity WHERE application_name = 'runclaim'"
_numbers = itertools.count()


class Fleet:
    """So many workers with so many prefork slots each."""

    def __init__(
        self,
        watch: psycopg.Connection[Any],
        folder: Path,
        workers: int,
        slots: int,
        *,
        env: Mapping[str, str],
        servers: Sequence[int],
    ) -> None:
        self.total = workers * slots
        self._watch, self._folder, self._many, self._slots = watch, folder, workers, slots
        self._env, self._servers = env, servers
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._workers = [self._start() for _ in range(self._many)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)

    def _start(self) -> subprocess.Popen[bytes]:
        name = f"w{next(_numbers)}"
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.slots_application", "worker"]
        command += ["-Q", "slots", "-n", f"{name}@slots", "-l", "WARNING", "-P", "prefork", "-c", str(self._slots)]
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=_ROOT, env=self._env, stdout=log, stderr=log, start_new_session=True)

    def _processes(self) -> list[psutil.Process]:
        return [
            each
            for worker in self._workers
            for ours in (psutil.Process(worker.pid),)
            for each in (ours, *ours.children(recursive=True))
        ]

    def cpu(self) -> float:
        """Seconds of CPU so far: this process, the workers and the servers, with their children."""
        servers = (psutil.Process(pid) for pid in self._servers)
        found = 0.0
        for process in (
            psutil.Process(),
            *self._processes(),
            *(each for ours in servers for each in (ours, *ours.children(recursive=True))),
        ):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                found += times.user + times.system
        return found

    def connections(self) -> int:
        """How many connections to the ledger the workers hold, after work."""
        ports = {int(port) for (port,) in self._watch.execute(_SESSIONS)}
        held: set[int] = set()
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                # A child has its parent's sockets, which it does not use.
                held |= {each.laddr.port for each in process.net_connections("tcp")} & ports
        return len(held)

    def drain(self, flow: Any, numbers: Sequence[int]) -> float:
        """Seconds from the workers' continuation to the end of these runs. Raises: RuntimeError for a wrong effect."""
        before = many_effects(self._folder)
        self._send(signal.SIGSTOP)
        try:
            for start in range(0, len(numbers), 1000):
                flow.enqueue_many([{"number": number} for number in numbers[start : start + 1000]])
            # The doorbell rings for those that came last.
            time.sleep(0.05)
        finally:
            began = time.monotonic()
            self._send(signal.SIGCONT)
        self._wait(before + len(numbers) * PHASES)
        seconds = time.monotonic() - began
        ours = set(numbers)
        found = sorted((run, phase) for run, phase, _ in effects(self._folder) if run in ours)
        if found != [(run, phase) for run in numbers for phase in range(PHASES)]:
            raise RuntimeError(f"{len(found)} effects of {len(numbers) * PHASES}, or some twice")
        return seconds

    def _wait(self, wanted: int) -> None:
        ends = time.monotonic() + _PATIENCE
        while many_effects(self._folder) < wanted or self._watch.execute(_LIVE).fetchone() != (False,):
            gone = [worker.poll() for worker in self._workers if worker.poll() is not None]
            if time.monotonic() > ends or gone:
                raise RuntimeError(f"{many_effects(self._folder)} of {wanted} effects; workers that ended: {gone}")
            time.sleep(0.002)

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers:
            os.killpg(worker.pid, number)
