"""
`python3 dev.py build`: the packages in dist/, checked, with a list of what is installed beside them, and proven.

`python3 dev.py lock`: the locks and the page of licences again, from pyproject.toml and constraints.txt.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final

import dev
from release import locks

DIST: Final = dev.ROOT / "dist"


def build() -> None:
    """Make dist/ again. Raises: SystemExit where a step fails, whose words stand above."""
    version = tomllib.loads((dev.ROOT / "pyproject.toml").read_text())["project"]["version"]
    shutil.rmtree(DIST, ignore_errors=True)
    # The wheel is built from the source distribution, which is complete then.
    _step("building", "-m", "build", "--no-isolation", "--outdir", str(DIST))
    wheel, source = DIST / f"runclaim-{version}-py3-none-any.whl", DIST / f"runclaim-{version}.tar.gz"
    _step("checking", "-m", "twine", "check", "--strict", str(wheel), str(source))
    parts = DIST / f"runclaim-{version}.cdx.json"
    _step(
        "listing", "-m", "cyclonedx_py", "requirements", "--pyproject", "pyproject.toml", "--output-reproducible",
        "--output-file", str(parts), str(locks.path("image"))
    )  # fmt: skip
    started = time.monotonic()
    from release.proof import Proof

    with tempfile.TemporaryDirectory(prefix="runclaim-proof-") as folder:
        Proof(Path(folder), wheel).hold(version)
    dev.say(f"the wheel alone runs the README's module: {time.monotonic() - started:.1f} s")
    dev.say(f"built dist/{wheel.name}, {source.name} and {parts.name}")


def _step(label: str, *words: str) -> None:
    dev.progress([sys.executable, *words], label=label, fix="the lines above say why")


def lock() -> None:
    """Renew what follows from the pins."""
    locks.renew()
    dev.set_up("test")  # with the new locks; the page reads the metadata of what is installed
    subprocess.run([dev.PYTHON, "-c", "from release import licences as l; l.PAGE.write_text(l.page())"], check=True)
    dev.say("renewed locks/ and docs/licences.md")


if __name__ == "__main__":
    {"build": build, "lock": lock}[sys.argv[1]]()
