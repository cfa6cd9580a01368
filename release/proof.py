"""
The proof of a wheel: installed alone into an empty environment, it runs the module of the README.

No checkout is on the path, in the working directory or in the environment of what is started here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dev
from release.locks import path
from runclaim.servers.machine import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: What the README's example needs.
_LOCK: Final = "demo"
_PATIENCE_SECONDS: Final = 300.0
_BLOCKS: Final = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Proof:
    """In a folder of its own, with a virtual environment that has the wheel and what the lock names."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.venv, self.project = folder / "venv", folder / "project"
        self.project.mkdir()
        base = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
        self._run([base, "-m", "venv", "--without-pip", self.venv], cwd=folder)
        install = installer(self.venv / "bin" / "python")
        self._run([*install, "--require-hashes", "-r", path(_LOCK)], cwd=folder)
        self._run([*install, "--no-deps", wheel], cwd=folder)

    def hold(self, version: str) -> None:
        """Run the README's module and its call. Raises: AssertionError, TimeoutExpired."""
        module, call = _BLOCKS.findall((dev.ROOT / "README.md").read_text())[:2]
        (self.project / "reviews.py").write_text(module)
        self._commit_twice()
        where = self._python("import runclaim; print(runclaim.__file__)")
        _expect(where.startswith(str(self.venv)), f"runclaim is imported from {where}")
        _expect(version in self._runclaim("--version"), "the wheel has another version")
        with self._dev():
            result = self._python(f"from reviews import review\n{call}\nprint(run.wait())")
            listed = self._runclaim("runs", "list")
        _expect(result == "1", f"the run's result is {result!r} where one file was changed")
        _expect("\tsucceeded\treview\t" in listed, f"the list of runs is {listed!r}")

    def _commit_twice(self) -> None:
        git = ["git", "-c", "user.name=proof", "-c", "user.email=proof@localhost"]
        self._run(["git", "init", "--quiet"])
        for words in ("first", "second"):
            (self.project / "notes.txt").write_text(words)
            self._run(["git", "add", "notes.txt"])
            self._run([*git, "commit", "--quiet", "-m", words])

    @contextmanager
    def _dev(self) -> Iterator[None]:
        """`runclaim dev` on the module, once its worker is ready; ended by Ctrl-C."""
        log = self.project / "dev.log"
        words: list[str | Path] = [
            self.venv / "bin" / "runclaim",
            "dev",
            "-A",
            "reviews",
            "--no-flower",
            f"--port={free_port()}",
        ]
        with log.open("w") as out, self._started(words, out.fileno()) as process:
            ends = time.monotonic() + _PATIENCE_SECONDS
            while " ready." not in log.read_text():
                _expect(process.poll() is None and time.monotonic() < ends, f"runclaim dev says:\n{log.read_text()}")
                time.sleep(0.1)
            yield
            process.send_signal(signal.SIGINT)
            _expect(process.wait(_PATIENCE_SECONDS) == 0, f"runclaim dev ended with:\n{log.read_text()}")

    @contextmanager
    def _started(self, words: Sequence[str | Path], out: int) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(words, cwd=self.project, env=self._environment(), stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _python(self, code: str) -> str:
        return self._run([self.venv / "bin" / "python", "-c", code]).splitlines()[-1]

    def _runclaim(self, *words: str) -> str:
        return self._run([self.venv / "bin" / "runclaim", *words])

    def _run(self, words: Sequence[str | Path], *, cwd: Path | None = None) -> str:
        done = subprocess.run(
            words, cwd=cwd or self.project, env=self._environment(), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=_PATIENCE_SECONDS, check=False
        )  # fmt: skip
        _expect(done.returncode == 0, f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """As here, without a path to the checkout and without settings."""
        dropped = ("PYTHON", "RUNCLAIM_", "CELERY_", "VIRTUAL_ENV")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        return kept | {"PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def installer(python: Path) -> list[str | Path]:
    """What installs packages for another Python: uv where there is one, else the pip of this one."""
    uv = shutil.which("uv") or str(dev.CACHE / "tools" / "bin" / "uv")
    if Path(uv).exists():
        return [uv, "pip", "install", "--quiet", "--python", python]
    return [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]


def _expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise AssertionError(otherwise)
