"""The test's side of the nursery: `spawn` starts a process, and what it returns is used as a Popen is."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.harness import nursery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ROOT = Path(__file__).parents[2]


class Forked:
    """A process that the nursery has forked: as much of a Popen as the tests use."""

    def __init__(self, nurse: Nurse, pid: int, command: Sequence[str]) -> None:
        self.pid, self.args, self.returncode = pid, command, None
        self._nurse = nurse

    returncode: int | None

    def poll(self) -> int | None:
        """The exit status, `None` while it runs."""
        if self.returncode is None:
            self._nurse.hear(0)
            self.returncode = self._nurse.ends.get(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status once it has ended. Raises: TimeoutExpired."""
        ends = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._nurse.hear(left)
        return status

    def send_signal(self, number: int) -> None:
        """To the process itself, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nurse:
    """A line to one nursery, which ends when this process does."""

    def __init__(self) -> None:
        self._line, other = socket.socketpair()
        with other:
            self._nursery = subprocess.Popen(
                [sys.executable, "-u", "-P", nursery.__file__, str(other.fileno())],
                cwd=_ROOT, pass_fds=[other.fileno()], start_new_session=True, stdin=subprocess.DEVNULL
            )  # fmt: skip
        self._unread = b""
        self._born: list[int] = []
        #: The exit status of each that has ended.
        self.ends: dict[int, int] = {}
        atexit.register(self.close)

    def start(
        self, command: Sequence[str], *, files: tuple[Path, Path, Path], env: Mapping[str, str], folder: Path
    ) -> Forked:
        """Start the command there, with that environment and no other; `files` are its input, output and errors."""
        request = {"command": list(map(str, command)), "env": dict(env), "folder": str(folder)}
        self._line.sendall(json.dumps(request | {"files": list(map(str, files))}).encode() + b"\n")
        while not self._born:
            self.hear(60)
        return Forked(self, self._born.pop(), request["command"])

    def hear(self, seconds: float | None) -> None:
        """Read what the nursery has told; wait so long for it. Raises: RuntimeError where it has ended."""
        self._line.settimeout(seconds)
        try:
            read = self._line.recv(65536)
        except (BlockingIOError, TimeoutError):
            return
        if not read:
            raise RuntimeError(f"the nursery of Celery processes has ended with {self._nursery.wait()}")
        *lines, self._unread = (self._unread + read).split(b"\n")
        for said in map(json.loads, lines):
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        if "status" in said:
            self.ends[said["pid"]] = said["status"]
        else:
            # The number may have been another's, long ago.
            self.ends.pop(said["pid"], None)
            self._born.append(said["pid"])

    def close(self) -> None:
        """End the nursery; what it has started goes on."""
        self._line.close()
        self._nursery.wait()


@cache
def _nurse(_pid: int) -> Nurse:
    return Nurse()


def spawn(
    command: Sequence[str], *, log: Path, env: Mapping[str, str], folder: Path
) -> subprocess.Popen[bytes] | Forked:
    """A process with a log, in a session of its own; by a fork of the nursery where that makes no difference."""
    if nursery.takes(command, env):
        log.touch()
        return _nurse(os.getpid()).start(command, files=(Path(os.devnull), log, log), env=env, folder=folder)
    with log.open("ab") as out:
        return subprocess.Popen(
            command, cwd=folder, env=dict(env), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )  # fmt: skip


def run(
    command: Sequence[str], *, env: Mapping[str, str], folder: Path, stdin: str = "", timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """A command's end and what it said, with nobody at a terminal; by a fork, as `spawn`."""
    if not nursery.takes(command, env):
        return subprocess.run(
            command, cwd=folder, env=dict(env), input=stdin, capture_output=True, text=True, check=False,
            timeout=timeout
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="runclaim-said-") as said:
        files = Path(said, "in"), Path(said, "out"), Path(said, "err")
        files[0].write_text(stdin)
        process = _nurse(os.getpid()).start(command, files=files, env=env, folder=folder)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, status, files[1].read_text(), files[2].read_text())
