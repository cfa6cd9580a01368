"""What the peers' bench tells of itself, and the environments that its peers run in."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_EVERY_WORK: Final = ("W1", "W2", "W3", "W4")


@dataclass(frozen=True, slots=True)
class Entry:
    """One peer in one variant: its script, and the Python that has what it needs."""

    script: Path
    variant: str
    works: tuple[str, ...]
    #: The name of its environment; none for runclaim, which runs in the project's own.
    venv: str | None = None

    @property
    def peer(self) -> str:
        """The script's name without its `peer_`."""
        return self.script.stem.removeprefix("peer_")

    @property
    def name(self) -> str:
        """Peer and variant, as `--only` has them."""
        return f"{self.peer}:{self.variant}"


class Bench:
    """
    A folder with `common.py`, scripts `peer_*.py`, and `run_peers.py` with its tables VENVS and ENTRIES.

    `venvs` is where the peers' environments are made and kept.
    """

    def __init__(self, folder: Path, venvs: Path) -> None:
        self.folder, self._venvs = folder, venvs
        told = runpy.run_path(str(folder / "run_peers.py"), run_name="run_peers")
        self._needs: dict[str, tuple[str, list[str]]] = told["VENVS"]
        theirs = [Entry(folder / script, variant, works, venv) for script, venv, variant, works in told["ENTRIES"]]
        ours = [Entry(_HERE / "peer_runclaim.py", name, _EVERY_WORK) for name in ("default", "prefork8", "rabbit")]
        self._entries = [*ours, *theirs]

    def chosen(self, only: list[str]) -> list[Entry]:
        """The entries so named, each name a peer or peer:variant, in that order. Raises: SystemExit."""
        found = [entry for name in only for entry in self._entries if name in (entry.peer, entry.name)]
        if missing := [name for name in only if not any(name in (entry.peer, entry.name) for entry in found)]:
            raise SystemExit(
                f"no such peer: {', '.join(missing)}; there are {', '.join(e.name for e in self._entries)}"
            )
        return list(dict.fromkeys(found))

    def python(self, entry: Entry) -> Path:
        """The Python that this entry runs with; its packages are installed on the first call. Raises: SystemExit."""
        if entry.venv is None:
            return Path(sys.executable)
        wanted, packages = self._needs[entry.venv]
        place = self._venvs / entry.venv
        if not (place / "complete").exists():
            base = shutil.which(wanted)
            if base is None:
                raise SystemExit(
                    f"{entry.name} needs {wanted}. Fix: BENCH_PY312=<its path>, or leave it out with --only"
                )
            print(f"installing {', '.join(packages)} into {place}", flush=True)
            _done(base, "-m", "venv", "--clear", place)
            _done(place / "bin" / "python", "-m", "pip", "install", "-q", *packages)
            (place / "complete").touch()
        return place / "bin" / "python"

    def command(self, entry: Entry, work: str, *, runs: int | None, timeout: float) -> list[str]:
        """The peer's own command line, by way of `launch.py`."""
        asked = [work, "--variant", entry.variant, "--out", "json", "--timeout", str(timeout)]
        many = ["--runs", str(runs)] if runs else []
        launch = [str(self.python(entry)), str(_HERE / "launch.py"), str(self.folder), str(entry.script)]
        return [*launch, *asked, *many]

    def environment(self, entry: Entry, root: Path, ports: dict[str, int]) -> dict[str, str]:
        """What the peer's processes are told: where the servers are, and for ours where its modules are found."""
        told = {"BENCH_ROOT": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        told |= {} if entry.venv else {"PYTHONPATH": f"{_HERE}{os.pathsep}{self.folder}"}
        return os.environ | told | {name: str(port) for name, port in ports.items()}


def _done(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
