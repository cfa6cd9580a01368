"""
Running tests against one mutant, in a copy of the working tree, in a process of its own.

The process is a fork of this one, which has imported what all tests need and nothing of runclaim: that saves a second
or two for each mutant. Whatever a trial leaves running is ended before the next one begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: What takes long to import, is imported by most tests, and starts no thread by that.
_HEAVY: Final = (
    "alembic.command", "celery.app.base", "celery.app.task", "fastapi", "hypothesis.strategies",
    "jsonschema", "kombu.transport.redis", "msgspec.json", "prometheus_client", "psycopg", "pydantic", "redis",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite", "sqlalchemy.orm", "uvicorn",
)  # fmt: skip
_LEFT_OUT: Final = (".git", ".venv*", ".cache", "__pycache__", ".mypy_cache", ".pytest_cache", ".hypothesis", "*.pyc")
#: In seconds: a single test that takes so long hangs, also on a busy machine.
_HUNG: Final = 60
_END_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG of prctl(2)
_SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER of prctl(2): what a trial leaves behind becomes ours


@dataclass
class Trial:
    """Tests that run against one mutant, and how they ended."""

    process: int
    output: Path
    deadline: float
    status: int | None = None

    def poll(self) -> str | None:
        """`killed`, `survived`, `timed out` or `None` while it runs."""
        done, status = os.waitpid(self.process, os.WNOHANG)
        if done:
            self.status = os.waitstatus_to_exitcode(status)
            # 5: no test was there to run, as after a rename.
            return "survived" if self.status in {0, 5} else "killed"
        if time.monotonic() < self.deadline:
            return None
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        return "timed out"

    def failed(self) -> str:
        """The name of the first test that failed; nothing where the code could not even be imported."""
        return next(iter(self.failures()), "")

    def failures(self) -> list[str]:
        """The names of the tests that failed, from pytest's summary."""
        lines = self.output.read_text(errors="replace").splitlines() if self.output.exists() else []
        failed = [line.split(" ", 1)[1].partition(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR "))]
        return [name for name in failed if "::" in name]


@dataclass
class Bench:
    """One copy of the working tree, and at most one trial in it."""

    root: Path
    server: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """What is told to whatever runs in this copy: its own code first, this folder's for the recorder."""
        return self.server | {"PYTHONPATH": os.pathsep.join(map(str, (self.root, Path(__file__).parents[1])))}

    def write(self, path: str, text: str) -> None:
        """Change one file of the copy."""
        (self.root / path).write_text(text)

    def failures(self, tests: Sequence[str], *, seconds: float) -> set[str]:
        """Run all of these tests, and tell which fail."""
        if not tests:
            return set()
        trial = self.start(tests, seconds=seconds, to_the_end=True)
        while trial.poll() is None:
            time.sleep(0.05)
        return set(trial.failures())

    def start(self, tests: Sequence[str], *, seconds: float, to_the_end: bool = False) -> Trial:
        """Run these tests, and stop at the first that fails."""
        output = self.root.parent / "output"
        sys.stdout.flush()
        if process := os.fork():
            return Trial(process, output, time.monotonic() + seconds)
        status = 70
        try:
            status = self._test(tests, output, [] if to_the_end else ["-x"])
        finally:
            os._exit(status)

    def _test(self, tests: Sequence[str], output: Path, options: list[str]) -> int:
        os.setsid()
        ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        here = str(Path.cwd())
        os.chdir(self.root)
        os.environ.update(self.env)
        sys.path[:] = [str(self.root), *(p for p in sys.path if p not in {"", here})]
        for name in [n for n in sys.modules if n.partition(".")[0] == "mutants"]:
            del sys.modules[name]
        quiet = [
            "-q",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            f"--timeout={_HUNG}",
            "--tb=line",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
        ]
        status = int(pytest.main([*quiet, *options, *tests]))
        sys.stdout.flush()
        sys.stderr.flush()
        return status


@contextlib.contextmanager
def benches(root: Path, jobs: int, server: dict[str, str]) -> Iterator[list[Bench]]:
    """That many copies of `root`, gone at the end with whatever still runs in them; `server` is for their tests."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    for name in _HEAVY if (root / "tests" / "servers").exists() else ():
        importlib.import_module(name)
    folder = Path(mkdtemp(prefix="runclaim-mutants-"))
    folder.chmod(0o755)  # PostgreSQL runs as somebody else
    try:
        yield [Bench(copy(root, folder / str(n) / "tree"), server) for n in range(jobs)]
    finally:
        end_all([p for p in psutil.Process().children() if str(p.pid) != server.get("MUTANTS_SERVER")])
        shutil.rmtree(folder, ignore_errors=True)


def copy(root: Path, place: Path) -> Path:
    """The working tree as it is, without what git ignores by name; compiled so that a change is always noticed."""
    shutil.copytree(root, place, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
    # A mutant may be as long as its source and as young: by hash, no stale byte code is taken for it.
    hashed = ["-q", "--invalidation-mode", "checked-hash", str(place / "runclaim")]
    subprocess.run([sys.executable, "-m", "compileall", *hashed], check=False, stdout=subprocess.DEVNULL)
    return place


def end_all(processes: list[psutil.Process]) -> None:
    """Kill these with all that they started, and wait for their end."""
    for process in processes[:]:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes += process.children(recursive=True)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
