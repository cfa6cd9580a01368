"""The commands of the ledger's tables as a person runs them: `runclaim db …`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runclaim import migrations
from tests.harness import nurse

if TYPE_CHECKING:
    import subprocess

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from runclaim.cli import main; main()"]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNCLAIM_", "CELERY_"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


def run(*words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return nurse.run([*PROGRAM, *words], env=environment(**more), folder=cwd)


def test_the_tables_are_checked_made_and_checked_again(database_url: str, tmp_path: Path):
    told = {"cwd": tmp_path, "RUNCLAIM_DATABASE_URL": database_url}
    before = run("db", "check", **told)
    current = run("db", "current", **told)
    upgrades = [run("db", "upgrade", **told) for _ in range(2)]
    after = run("db", "check", **told)

    assert (1, "none\n") == (before.returncode, current.stdout)
    assert "has no runclaim tables" in before.stderr
    assert "runclaim db upgrade" in before.stderr
    assert [0, 0] == [upgrade.returncode for upgrade in upgrades]
    assert ["upgraded from nothing", "already up to date"] == [each.stderr.strip().split(", ")[-1] for each in upgrades]
    assert (0, f"{migrations.HEAD}\n") == (after.returncode, run("db", "current", **told).stdout)


@pytest.mark.parametrize(
    "url,code,words",
    [
        ("postgresql+psycopg://me:hidden@127.0.0.1:1/none", 6, "does not answer"),
        ("mysql://localhost/x", 1, "is not supported: use postgresql://"),
        ("sqlite:///:memory:", 1, "does not name a plain file"),
    ],
)
def test_a_ledger_that_cannot_be_used_is_told_with_its_own_exit_code_and_no_password(
    tmp_path: Path, url: str, code: int, words: str
):
    told = run("db", "check", "--url", url, cwd=tmp_path)

    assert (code, "") == (told.returncode, told.stdout)
    assert words in told.stderr
    assert "hidden" not in told.stderr
