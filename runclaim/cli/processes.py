"""Several processes with one log: each line is prefixed with who wrote it, and all of them end together."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, Self

import click

from runclaim.servers.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A warm shutdown lets a phase end; after this the rest is killed, and the ledger recovers it.
_PATIENCE_SECONDS: Final = 15.0
#: The upkeep's heartbeat in Celery's own words; left out of the log, its warnings are not.
_ROUTINE: Final = re.compile(
    r"(Sending due task|Task) runclaim\.(rescue|dispatch|deliver|tell|purge|forget)\b.*( received| succeeded|\))"
)
_COLOURS: Final = ("cyan", "magenta", "yellow", "green", "blue")


class Processes:
    """Children of one command. They are in a session of their own, so Ctrl-C reaches this command only."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._ended: queue.Queue[str] = queue.Queue()
        self._readers: list[threading.Thread] = []
        #: A command that is killed takes its children with it: they would work on beside those of the next one.
        self._guard = Guard(signal.SIGTERM)

    def start(self, name: str, argv: Sequence[str], *, umask: int = -1) -> None:
        """Start a child whose output goes to the common log under `name`."""
        child = subprocess.Popen(  # noqa: S603 - our own command lines
            argv,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            umask=umask,
        )
        colour = _COLOURS[len(self._children) % len(_COLOURS)]
        self._children[name] = child
        self._guard.watch(*(each.pid for each in self._children.values()))
        reader = threading.Thread(target=self._read, args=(name, child, colour), daemon=True)
        reader.start()
        self._readers.append(reader)

    def _read(self, name: str, child: subprocess.Popen[str], colour: str) -> None:
        for line in child.stdout or ():
            text = line.rstrip()
            if text and not _ROUTINE.search(text):
                click.echo(f"{click.style(f'{name:<7}', fg=colour)} | {text}")
        self._ended.put(name)

    def watch(self) -> int:
        """Wait for Ctrl-C, SIGTERM or a child's end; returns the exit status of the command."""
        # SIGINT too: a shell that starts this in the background has it ignored.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ended.put(""))
        name = self._ended.get()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not name:
            click.echo("dev     | stopping; press Ctrl-C again to kill", err=True)
            return 0
        code = self._children[name].wait()
        click.echo(f"dev     | {name} exited with status {code}; see its last lines above. Stopping.", err=True)
        return 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop(signal.SIGTERM)
            ends = time.monotonic() + _PATIENCE_SECONDS
            for child in self._children.values():
                child.wait(max(0.1, ends - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            click.echo(
                "dev     | some processes did not stop in time; killing them (the ledger recovers their runs)", err=True
            )
        finally:
            self._kill()
            self._guard.watch()
            self._guard.close()
        for reader in self._readers:
            reader.join(1.0)
        sys.stdout.flush()

    def _stop(self, number: signal.Signals) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.send_signal(number)

    def _kill(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
