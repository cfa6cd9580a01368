"""The quickstart as its reader goes through it: every command of the page, in the page's order, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runclaim.servers.machine import free_port
from tests.harness import Process, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "quickstart.md").read_text()


def blocks(language: str) -> list[str]:
    """What the page has in this language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


INSTALL, DEV, *COMMANDS = blocks("sh")


def test_the_quickstart_installs_extras_that_exist():
    extras = re.findall(r"pip install \"[^\[]*\[([^\]]+)\]\"", INSTALL)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert 1 == len(extras)
    assert set() == set(extras[0].split(",")) - set(project["optional-dependencies"])


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell in which `runclaim` is this checkout's."""
    program = tmp_path / "bin" / "runclaim"
    program.parent.mkdir()
    start = shlex.join([sys.executable, "-c", "from runclaim.cli import main; main()"])
    program.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
    program.chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RUNCLAIM_", "CELERY_"))}
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return inherited | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The reader's folder, once the module of the page is saved in it."""
    (module,) = blocks("python")
    folder = tmp_path / "orders"
    folder.mkdir()
    (folder / "orders.py").write_text(module)
    return folder


@pytest.fixture
def first_terminal(folder: Path, environment: dict[str, str]) -> Iterator[Process]:
    """What the page starts there."""
    # Flower and the broker have ports of their own, which another test may hold.
    command = [*shlex.split(DEV), "--no-flower", f"--port={free_port()}"]
    started = Process("dev", command, log=folder / "dev.log", env=environment, folder=folder)
    yield started
    started.kill_all()


class Shell:
    """The second terminal: one shell, so what a command assigned is there for the next."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._popen = subprocess.Popen(
            ["sh"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def start(self, command: str) -> None:
        """Have the shell run it; returns at once."""
        self._popen.stdin.write(f"{{\n{command}\n}} </dev/null\nprintf '\\nstatus %s\\n' $?\n")

    def answer(self) -> tuple[int, str]:
        """The exit status and the output of the command that was started, once it has ended."""
        output = ""
        for line in self._popen.stdout:
            if ended := re.fullmatch(r"status (\d+)\n", line):
                return int(ended[1]), output.removesuffix("\n")
            output += line
        raise AssertionError(f"the shell ended:\n{output}")

    def run(self, command: str) -> tuple[int, str]:
        """The exit status and the output of a command."""
        self.start(command)
        return self.answer()

    def close(self) -> None:
        """End the shell."""
        self._popen.kill()
        self._popen.communicate()


@pytest.fixture
def second_terminal(folder: Path, environment: dict[str, str]) -> Iterator[Shell]:
    """A shell in the reader's folder."""
    shell = Shell(folder, environment)
    yield shell
    shell.close()


@pytest.mark.slow
@pytest.mark.timeout(600)  # six interpreters start one after the other, on a machine that may be busy
def test_every_command_of_the_quickstart_does_what_the_page_says(
    first_terminal: Process, second_terminal: Shell, folder: Path, environment: dict[str, str]
):
    """
    INVARIANT: whoever follows the page sees a run succeed, and another one outlive the process that worked on it.

    Breaks when a command of the page, its module, or what a command prints changes on one side only.
    """
    enqueue, runs_list, enqueue_slow, kill, tail = COMMANDS
    result, journal = blocks("text")
    first_terminal.said(" ready.", within=300)
    enqueued = [second_terminal.run(enqueue) for _ in range(2)]
    listed = second_terminal.run(runs_list)
    second_terminal.start(enqueue_slow)
    pid_file = folder / "order-8.pid"
    until(lambda: pid_file.exists() and pid_file.read_text(), "the body of order 8", within=300)
    # At once, from a third terminal: on a busy machine the command above takes its time to end.
    killed = subprocess.run(["sh", "-c", kill], cwd=folder, env=environment, check=False)
    second_terminal.answer()
    tailed = second_terminal.run(tail)
    os.kill(first_terminal.pid, signal.SIGINT)

    assert [(0, result)] * 2 == enqueued, first_terminal.tail
    assert 1 == len(listed[1].splitlines())
    assert 0 == killed.returncode
    assert 0 == tailed[0], first_terminal.tail
    assert [_cells(line) for line in journal.splitlines()] == [_cells(line) for line in tailed[1].splitlines()]
    assert 0 == first_terminal.wait(within=120), first_terminal.tail


def _cells(line: str) -> list[str]:
    """What a line of the journal says, on a terminal or in a pipe, without its time and the process that it names."""
    cells = [re.sub(r"dev@\S+:\d+", "dev@…", cell.strip()) for cell in re.split(r"\t|  +", line) if cell]
    return [cell for cell in cells if not re.fullmatch(r"([\d-]+T)?\d\d:\d\d:\d\d\S*", cell)]
