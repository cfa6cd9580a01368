"""The processes of a site: workers, beats, Flower, and whatever else a test starts beside them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from runclaim.servers.machine import free_port
from tests.harness.process import Process
from tests.harness.until import until

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT = Path(__file__).parents[2]
#: Ends what a killed test run leaves behind: it reads until the other end of its pipe is gone.
_GUARD = 'while read -r group; do groups="$groups -$group"; done; kill -9 $groups'
_names = itertools.count(1)


class Processes:
    """Starts processes in one folder, and ends them all. `told` is what the application of the tests is told."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.told = folder, told
        self.processes: list[Process] = []
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD], start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip

    def worker(
        self,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: str | None = None,
        events: bool = False,
        env: dict[str, str] | None = None,
        options: Iterable[str] = (),
        module: str = "tests.harness.app",
        quiet: bool = True,
        ready: bool = True,
    ) -> Process:
        """A worker that is ready. `quiet` leaves out gossip, mingle and heartbeat, which cost a second each start."""
        words = ["worker", "-l", "INFO", "-P", pool, "-c", str(concurrency)]
        words += ["-Q", queues] if queues else []
        words += ["-E"] if events else []
        words += ["--without-gossip", "--without-mingle", "--without-heartbeat"] if quiet else []
        name = f"worker{next(_names)}"
        process = self.celery(name, [*words, "-n", f"{name}-{os.getpid()}@%h", *options], module=module, env=env)
        if ready:
            process.said(" ready.", within=60)
        return process

    def beat(self, *, module: str = "tests.harness.app", env: dict[str, str] | None = None) -> Process:
        """A beat that has started, with a schedule file of its own."""
        name = f"beat{next(_names)}"
        words = ["beat", "-l", "INFO", "-s", str(self.folder / f"{name}.schedule"), "--pidfile", ""]
        process = self.celery(name, words, module=module, env=env)
        process.said("beat: Starting", within=60)
        return process

    def flower(self) -> str:
        """A Flower that answers; returns its address. What it shows, it heard while it was up."""
        address = f"http://127.0.0.1:{free_port()}"
        words = ["flower", "--address=127.0.0.1", f"--port={address.rpartition(':')[2]}", "--logging=warning"]
        process = self.celery("flower", words, env={"FLOWER_UNAUTHENTICATED_API": "true"})

        def answers() -> bool:
            assert process.is_up, process.tail
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/healthcheck", timeout=5) as answer:
                return bool(answer.status == HTTPStatus.OK)
            return False

        until(answers, "an answer of Flower", within=60, so_far=lambda: process.tail)
        return address

    def celery(
        self, name: str, words: Iterable[str], *, module: str = "tests.harness.app", env: dict[str, str] | None = None
    ) -> Process:
        """`celery -A module …` as a process of this site; returns at once."""
        return self.start(name, [sys.executable, "-m", "celery", "-A", module, *words], env=env)

    def start(self, name: str, command: list[str], *, env: dict[str, str] | None = None) -> Process:
        """Any command, in this site's environment and folder."""
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("RUNCLAIM_", "CELERY_"))}
        paths = os.pathsep.join((str(_ROOT), str(self.folder)))
        variables |= {"HARNESS": json.dumps(self.told), "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"} | (env or {})
        process = Process(name, command, log=self.folder / f"{name}.log", env=variables, folder=self.folder)
        self.processes.append(process)
        if self._guard.stdin:
            self._guard.stdin.write(f"{process.pid}\n".encode())
            self._guard.stdin.flush()
        return process

    def close(self) -> None:
        """End every process, and every child of theirs."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            process.kill_all()
        self._guard.kill()
        self._guard.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
