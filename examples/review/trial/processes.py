"""
The processes of a trial: workers, a beat and a forge, started as anybody starts them, and ended whatever happens.

A guard outlives this process on purpose: when our end of its pipe closes, which no signal prevents, it ends
what is left and deletes the folder.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_GUARD: Final = """
while read -r word rest; do
    case $word in keep) keep=1 ;; groups) groups=$rest ;; esac
done
[ -n "$groups" ] && kill -9 $groups
[ -n "$keep" ] || rm -rf "$0"
"""
#: How long a worker may take to start on a slow machine.
_START_SECONDS: Final = 60.0
_CELERY: Final = ("celery", "-A", "reviewer.app")


class Process:
    """
    One Python module as a process with its children and a log.

    It has a session of its own, so Ctrl-C in the terminal does not reach it.
    """

    def __init__(self, name: str, command: list[str], guard: Guard, environment: Mapping[str, str]) -> None:
        self.name, self.log = name, guard.folder / f"{name}.log"
        self._command, self._guard, self._environment = command, guard, environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The main process; the last one, if it has ended."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start, or start again; the log goes on."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command],
                cwd=self._guard.folder, env=self._environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )  # fmt: skip
        self._guard.watch(self._process.pid)

    def wait_until(self, said: bytes) -> None:
        """Return once the log has `said`. Raises: RuntimeError with the log's end when the process ends or hangs."""
        ends = time.monotonic() + _START_SECONDS
        while said not in (log := self.log.read_bytes()):
            if self._process is None or self._process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"{self.name} did not start; its log ends:\n{log.decode(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the main process alone; what becomes of its children is the operating system's affair."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM; returns at once."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def end(self, *, patience: float = 0.0) -> None:
        """Wait so many seconds for an orderly end, then end it; leaves nothing behind."""
        if self._process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Guard:
    """Owns a folder and the process groups of a trial; removes both when the trial ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keeps = False
        self._groups: set[int] = set()
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, str(folder)], cwd="/", start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip

    def watch(self, group: int) -> None:
        """A process group to end when the trial ends."""
        # The number of a group that has ended may soon be somebody else's.
        self._groups = {each for each in self._groups if _exists(each)} | {group}
        self._tell(" ".join(["groups", *(f"-{each}" for each in self._groups)]))

    def keep(self) -> None:
        """Leave the folder where it is."""
        self.keeps = True
        self._tell("keep")

    def close(self) -> None:
        """End what is left, now; returns when it is done."""
        self._tell(" ".join(["groups", *(f"-{each}" for each in self._groups if _exists(each))]))
        self._shell.communicate()

    def _tell(self, line: str) -> None:
        if self._shell.stdin:
            self._shell.stdin.write(f"{line}\n".encode())
            self._shell.stdin.flush()


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        pass
    return True


def worker(name: str, guard: Guard, environment: Mapping[str, str]) -> Process:
    """A worker with two pool children."""
    command = [
        *_CELERY,
        "worker",
        "-c",
        "2",
        "-n",
        f"{name}@demo",
        "-l",
        "INFO",
        "--without-mingle",
        "--without-gossip",
    ]
    return Process(name, command, guard, environment)


def beat(guard: Guard, environment: Mapping[str, str]) -> Process:
    """The beat that rescues and dispatches."""
    schedule = str(guard.folder / "beat-schedule")
    return Process("beat", [*_CELERY, "beat", "-s", schedule, "--pidfile=", "-l", "INFO"], guard, environment)


def forge(file: Path, port: int, guard: Guard, environment: Mapping[str, str]) -> Process:
    """The forge; started again it is where it was, with what it had."""
    return Process("forge", ["forge", str(file), "--port", str(port)], guard, environment)
