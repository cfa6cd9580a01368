"""One private server process: how it starts, fails on purpose, ends, and leaves nothing behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Self

from runclaim.servers.guard import Guard
from runclaim.servers.machine import unprivileged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


class Server:
    """
    One private server process with a folder of its own.

    `start` returns once the server answers in its own protocol. Stopped or killed, it starts again on the same port
    with what its folder holds. `how` says in words which version this is and where it came from.
    """

    #: What asks this kind to end in order, and what ends it at once the way its crash would.
    graceful: signal.Signals = signal.SIGTERM
    abrupt: signal.Signals = signal.SIGKILL
    #: Seconds that a start or an orderly end may take before it counts as failed.
    patience: float = 30

    def __init__(
        self,
        kind: str,
        url: str,
        how: str,
        *,
        command: Sequence[str | Path],
        folder: Path,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.kind, self.url, self.how = kind, url, how
        self.folder, self.log = folder, folder / "server.log"
        self.seconds = 0.0  # how long the last start took
        self._command, self._ready, self._env = [str(word) for word in command], ready, env
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = Guard(self.abrupt, folder)
        self._owner = os.getpid()
        atexit.register(self.remove)

    @property
    def pid(self) -> int | None:
        """The server's process, or `None` while it is down."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> Self:
        """
        Return once the server answers; at once if it is up.

        Raises: `RuntimeError` with the end of its log when it ends, or does not answer within `patience`.
        """
        if self.pid:
            return self
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=self._env, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **unprivileged()
            )  # fmt: skip
        self._guard.watch(self._process.pid)
        while not self._answers():
            if not self.pid or time.monotonic() > began + self.patience:
                self.kill()
                raise RuntimeError(f"{self.how} did not start; its log ends:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.005)
        self.seconds = time.monotonic() - began
        return self

    def stop(self, *, immediate: bool = False) -> None:
        """End the server in order, or `immediate`ly, as a crash of this kind would; returns when it is gone."""
        if self._process and self.pid:
            self._process.send_signal(self.abrupt if immediate else self.graceful)
            self.resume()  # a stopped process would not even get the signal
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.patience)
        self.kill()

    def kill(self) -> None:
        """SIGKILL; returns when the server is gone."""
        if self._process:
            self.send(signal.SIGKILL)
            self._process.wait()
            self._guard.watch()

    def restart(self, *, immediate: bool = False) -> Self:
        """Stop and start again: same port, same folder."""
        self.stop(immediate=immediate)
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, after `pause`."""
        self.send(signal.SIGCONT)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server; none if it is down."""
        if pid := self.pid:  # asked once: it may end at any moment
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)

    def remove(self) -> None:
        """End the server for good and delete its folder. Happens by itself when this process ends, however it ends."""
        if os.getpid() == self._owner and self._guard.is_up:
            self.stop(immediate=True)
            self._guard.close()
            atexit.unregister(self.remove)

    def _answers(self) -> bool:
        try:
            return self._ready()
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.remove()
