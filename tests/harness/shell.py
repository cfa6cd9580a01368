"""A person at a shell, or a script: `runclaim …` as a process of its own, with its output apart."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.nurse import run

_ROOT = Path(__file__).parents[2]
#: Not the script of the environment, so that the tests run what lies in this folder.
PROGRAM = (sys.executable, "-c", "from runclaim.cli import main; main()")
_LONGEST = 60.0


@dataclass(frozen=True)
class Told:
    """What a command gave: data, talk and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value of its data."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The JSON value of each line of its data."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Shell:
    """A shell in a folder with an environment; `variables` are the only ones of runclaim and Celery that it has."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = PROGRAM

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RUNCLAIM_", "CELERY_", "FLOWER_")) and name not in {"NO_COLOR", "COLUMNS"}
        }
        paths = os.pathsep.join((str(_ROOT), str(self.folder)))
        return kept | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "TERM": "xterm"} | self.variables

    def __call__(self, *words: str, stdin: str | None = None, **more: str) -> Told:
        """Run a command to its end, with nobody at a terminal; `more` are variables."""
        done = run([*self.program, *words], env=self.environment | more, folder=self.folder, stdin=stdin or "")
        return Told(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **how: Any) -> subprocess.Popen[str]:
        """Start a command; its output comes in pipes unless told otherwise."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        return subprocess.Popen([*self.program, *words], cwd=self.folder, env=self.environment, text=True, **pipes)

    def at_terminal(self, *words: str, answer: str = "", **more: str) -> Told:
        """Run a command at a terminal of 80 columns, where somebody types `answer`; what it says is one text."""
        here, there = pty.openpty()
        environment = self.environment | {"COLUMNS": "80"} | more
        process = subprocess.Popen(
            [*self.program, *words], cwd=self.folder, env=environment, stdin=there, stdout=there, stderr=there,
            start_new_session=True
        )  # fmt: skip
        os.close(there)
        os.write(here, answer.encode())
        said = b""
        try:
            while more_said := os.read(here, 65_536):
                said += more_said
        except OSError:  # the other end is closed: the command has ended
            pass
        os.close(here)
        return Told(process.wait(_LONGEST), said.decode(), "")
