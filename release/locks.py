"""
The locks: every package that a set-up installs, by version and by the hashes of its files, without an address.

The versions are those of constraints.txt; `python3 dev.py lock` looks up the hashes. An installer that is given a lock
and `--require-hashes` takes no file that was changed since.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import dev

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDER: Final = dev.ROOT / "locks"
#: The extras of each lock: those of the set-ups, and those of the image.
EXTRAS: Final = dev.EXTRAS | {"image": "api,flower,metrics,otel,postgres,redis"}
#: What installs packages where Python has neither venv nor pip of its own.
UV: Final = "uv"
#: The image gets a wheel; a checkout is built where it is.
_BUILDS: Final = ("editables", "hatchling")
#: The oldest Python that every pinned package supports.
_PYTHON: Final = "3.11.5"
_LINE: Final = re.compile(r"^([\w.-]+)==(\S+?)(?: ; (.+?))? \\$", re.MULTILINE)


class Locked(NamedTuple):
    """A package of a lock. It is installed where its `marker` holds, if it has one."""

    name: str
    version: str
    marker: str


def path(lock: str) -> Path:
    """The file of a lock."""
    return FOLDER / f"{lock}.txt"


def locked(lock: str) -> list[Locked]:
    """The packages of a lock, in the order of their names."""
    return [Locked(*found) for found in _LINE.findall(path(lock).read_text())]


def renew() -> None:
    """Write each lock again from pyproject.toml and constraints.txt. Raises: CalledProcessError."""
    FOLDER.mkdir(exist_ok=True)
    for lock, extras in EXTRAS.items():
        words = [word for extra in extras.split(",") for word in ("--extra", extra)]
        _compile(lock, ["pyproject.toml", "-", *words], () if lock == "image" else _BUILDS)
    _compile(UV, ["-"], [UV])


def _compile(lock: str, sources: Sequence[str], more: Sequence[str]) -> None:
    uv = shutil.which("uv") or dev.fetched_uv(sys.executable)
    path(lock).unlink(missing_ok=True)  # or its versions would count as wanted
    subprocess.run(
        [
            *(uv, "pip", "compile", *sources, "--constraints", "constraints.txt"),
            *("--generate-hashes", "--universal", "--python-version", _PYTHON),
            *("--no-header", "--no-annotate", "--quiet", "--output-file", str(path(lock))),
        ],
        cwd=dev.ROOT,
        input="\n".join(more),
        text=True,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    print(f"runclaim: locks/{lock}.txt has {len(locked(lock))} packages")
