"""One Celery process of a test: a worker, a beat, or whatever else is started on the application."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import psutil

from tests.harness.nurse import spawn
from tests.harness.until import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Process:
    """
    A process group with a log. `stop` asks it to end in order, `kill` ends its main process at once.

    Its children are its own to end; `end` (called by the site) leaves none behind.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str], folder: Path) -> None:
        self.name, self.log = name, log
        self._popen = spawn(command, log=log, env=env, folder=folder)

    @property
    def pid(self) -> int:
        """The main process."""
        return self._popen.pid

    @property
    def is_up(self) -> bool:
        """Whether the main process lives."""
        return self._popen.poll() is None

    @property
    def text(self) -> str:
        """All it has logged."""
        return self.log.read_text(errors="replace")

    def children(self) -> list[int]:
        """The pool's child processes, the oldest first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return sorted(child.pid for child in psutil.Process(self.pid).children())
        return []

    def said(self, words: str, *, times: int = 1, within: float = 30.0) -> str:
        """Wait until the log has `words` so many times; returns the log. Raises: AssertionError when it ends first."""

        def seen() -> bool:
            if self.text.count(words) >= times:
                return True
            assert self.is_up, f"{self.name} ended with {self._popen.returncode} before it said {words!r}:\n{self.tail}"
            return False

        until(seen, f"{words!r} in the log of {self.name}", within=within, so_far=lambda: self.tail)
        return self.text

    @property
    def tail(self) -> str:
        """The end of the log, for messages."""
        return self.text[-4000:]

    def wait(self, within: float = 30.0) -> int:
        """The exit status once the main process has ended."""
        try:
            return self._popen.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {within:g} s:\n{self.tail}") from None

    def ask_to_stop(self) -> None:
        """SIGTERM to the main process; returns at once."""
        self._popen.send_signal(signal.SIGTERM)

    def stop(self, within: float = 30.0) -> int:
        """SIGTERM, and wait for the end; returns the exit status."""
        self.ask_to_stop()
        return self.wait(within)

    def kill(self) -> None:
        """SIGKILL to the main process; its children notice by themselves."""
        self._popen.kill()
        self._popen.wait()

    def kill_all(self) -> None:
        """SIGKILL to the main process and every child at once: the machine is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def kill_child(self, pid: int | None = None) -> int:
        """SIGKILL to one pool child; returns which."""
        target = self.children()[0] if pid is None else pid
        os.kill(target, signal.SIGKILL)
        return target

    def pause(self) -> None:
        """SIGSTOP to the main process and every child."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        os.killpg(self.pid, signal.SIGCONT)
