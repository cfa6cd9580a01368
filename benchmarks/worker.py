"""A side's worker: one process group that can be stopped where it stands, and whose CPU time can be read."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ROOT: Final = Path(__file__).resolve().parents[1]


class Worker:
    """What `started` gives; `servers` are the process ids of the ledger and the broker."""

    def __init__(self, process: subprocess.Popen[bytes], servers: Sequence[int]) -> None:
        self._process, self._servers = process, servers

    def stop(self) -> None:
        """Stop its processes where they stand."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def require_up(self) -> None:
        """Raises: RuntimeError when it has ended."""
        if (status := self._process.poll()) is not None:
            raise RuntimeError(f"the worker has ended with {status}; RUNCLAIM_BENCH_LOGS=1 shows its log")

    def cpu(self) -> float:
        """Seconds of CPU so far: this process, the worker's and the servers', with what their children used."""
        found = 0.0
        for pid in (os.getpid(), self._process.pid, *self._servers):
            ours = psutil.Process(pid)
            for process in (ours,) if pid == os.getpid() else (ours, *ours.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    found += times.user + times.system
        return found


@contextmanager
def started(
    name: str, command: Sequence[str], env: Mapping[str, str], folder: Path, servers: Sequence[int]
) -> Iterator[Worker]:
    """Run `command` from the project's folder, its log in `folder`; ended in order, whatever state it is in."""
    place = folder / f"{name}.log"
    with place.open("ab") as log:
        process = subprocess.Popen(command, cwd=_ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    worker = Worker(process, servers)
    try:
        yield worker
    finally:
        with suppress(ProcessLookupError):
            worker.go_on()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        if os.environ.get("RUNCLAIM_BENCH_LOGS"):
            print(place.read_text())
