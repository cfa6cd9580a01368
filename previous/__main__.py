"""
Run the acceptance tests of the previous release on today's tables, then a fleet of both releases under kills.

    python -m previous [--commit REVISION] [pytest's arguments]

The previous release is the last tag; until there is one, the last commit before the tables of this release.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Final

import dev
from release.proof import installer

#: The last commit whose tables are older than today's.
BEFORE: Final = "5701bee"
_ROOT: Final = Path(__file__).resolve().parents[1]
#: Those of the previous release that start workers on a ledger; the others of its suite do not care for the tables.
_TESTS: Final = (
    "tests/acceptance",
    "tests/faults/test_messages.py",
    "tests/faults/test_two_releases.py",
    # At `BEFORE` it expects the words of an older message.
    "--ignore=tests/acceptance/test_command_line.py",
)


def main() -> None:
    """Exit with the status of whichever fails first."""
    asked = argparse.ArgumentParser(prog="dev.py previous", description=__doc__)
    asked.add_argument("--commit", help="instead of the last tag")
    told, arguments = asked.parse_known_args()
    commit = _commit(told.commit)
    if commit is None:
        dev.say("LEFT OUT: this clone has no commit of the previous release; make one with its whole history")
        return
    tree = dev.CACHE / "previous" / commit
    if not (tree / "ready").exists():
        _lay_out(commit, tree)
    python = tree / "venv" / "bin" / "python"
    dev.say(f"the previous release is {commit[:10]}; its tests run on today's tables")
    _pytest(python, tree / "checkout", [*(arguments or _TESTS), "-p", "ahead"], {"PYTHONPATH": str(_ROOT / "previous")})
    dev.say("a fleet of both releases")
    variables = {"PREVIOUS_TREE": str(tree)}
    _pytest(Path(sys.executable), _ROOT, ["tests/faults/previous_release.py", "-n", "0", "-s"], variables)


def _commit(named: str | None) -> str | None:
    tags = _git("tag", "--list", "v*", "--sort=-creatordate", "--merged", "HEAD").split()
    wanted = named or (tags[0] if tags else BEFORE)
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}").strip()
    except subprocess.CalledProcessError:
        if named:
            raise SystemExit(f"runclaim: there is no commit {named} here") from None
        return None


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=_ROOT, check=True, capture_output=True, text=True).stdout


def _lay_out(commit: str, tree: Path) -> None:
    """Its tests in `checkout`, and its package, built from there, in an environment beside today's dependencies."""
    checkout = tree / "checkout"
    checkout.mkdir(parents=True, exist_ok=True)
    packed = subprocess.run(["git", "archive", commit], cwd=_ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(checkout, filter="data")
    base = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    subprocess.run([base, "-m", "venv", "--without-pip", "--clear", tree / "venv"], check=True)
    python = tree / "venv" / "bin" / "python"
    subprocess.run([*installer(python), "--no-deps", checkout], check=True)
    (own,) = (tree / "venv" / "lib").glob("python*/site-packages")
    (todays,) = dev.VENV.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(f"{todays}\n")
    # What runs is the package that was installed, and not the checkout.
    (checkout / "runclaim").rename(tree / "source")
    (tree / "ready").touch()


def _pytest(python: Path, folder: Path, arguments: list[str], variables: dict[str, str]) -> None:
    own = any(argument.startswith("-n") for argument in arguments)
    spread = [] if own else ["-n", str(min(2 * (os.cpu_count() or 1), 8)), "--dist", "worksteal"]
    env = (
        os.environ | {"PREVIOUS_RUNCLAIM": str(dev.VENV / "bin" / "runclaim"), "PREVIOUS_ROOT": str(_ROOT)} | variables
    )
    done = subprocess.run([python, "-m", "pytest", "-q", *spread, *arguments], cwd=folder, env=env, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
