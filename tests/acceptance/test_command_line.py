"""The commands as a person runs them: `runclaim db …` and `runclaim dev`."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from sqlalchemy import make_url

from runclaim import migrations
from tests.harness import Process, nurse, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "from runclaim.cli import main; main()"]
MODULE = """
from dataclasses import dataclass
from celery import Celery
from runclaim import Context, Runclaim

app = Celery("shop", broker="redis://localhost:1")
runs = Runclaim(app)


@dataclass(frozen=True)
class Order:
    number: int


order = runs.flow("order", Order, key="{number}")


@order.phase
def reserve(ctx: Context[Order]) -> int:
    return ctx.input.number


@order.phase
def charge(ctx: Context[Order]) -> int:
    return ctx.result(reserve) * 2
"""


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
        ("mysql://localhost/x", 1, "is not supported: use postgresql+psycopg://"),
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


class Dev(Process):
    """`runclaim dev` on a module in a folder of its own."""

    def __init__(self, folder: Path, **more: str) -> None:
        (folder / "shop.py").write_text(MODULE)
        words = ["dev", "-A", "shop", "-c", "2", "--no-flower"]
        super().__init__("dev", [*PROGRAM, *words], log=folder / "dev.log", env=environment(**more), folder=folder)

    def exported(self) -> dict[str, str]:
        """What a shell has after the lines that a second terminal is told to paste were pasted there."""
        lines = re.findall(r"^export .*$", self.text, re.MULTILINE)
        told = subprocess.run(
            ["sh"],
            input="\n".join([*lines, "env -0"]),
            env=environment(HOME="/"),
            capture_output=True,
            text=True,
            check=True,
        )
        pairs = (each.partition("=") for each in told.stdout.split("\0"))
        return {name: value for name, _, value in pairs if name.startswith(("RUNCLAIM_", "CELERY_"))}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose name a shell, a URL and a configuration file each read in a way of their own."""
    folder = tmp_path / 'My Pro%2Fjects; it\'s $HOME # "now"'
    folder.mkdir()
    return folder


@pytest.fixture
def dev(project: Path) -> Iterator[Dev]:
    started = Dev(project)
    yield started
    started.kill_all()


def test_one_command_runs_a_flow_on_sqlite_and_a_private_broker_and_stops_cleanly(dev: Dev, project: Path):
    """Nothing is configured, and the broker that the module names does not exist."""
    dev.said(" ready.", within=60)
    dev.said("beat: Starting", within=60)
    exported = dev.exported()
    broker = make_url(exported["CELERY_BROKER_URL"])
    asked = "import shop, datetime; print(shop.order.enqueue(number=21).wait(datetime.timedelta(seconds=30)))"
    told = subprocess.run(
        [sys.executable, "-c", asked], cwd=project, env=environment(**exported), capture_output=True, text=True,
        check=False
    )  # fmt: skip
    dev.said("order/charge 21: success")
    children = dev.children()
    words = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
    with redis.Redis(port=broker.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    os.kill(dev.pid, signal.SIGINT)

    assert "42\n" == told.stdout, told.stderr
    assert 0 == dev.wait(), dev.tail
    until(lambda: not any(_lives(pid) for pid in children), "the end of every child")
    assert "Traceback" not in dev.text
    assert not [each for each in words if str(broker.password) in each]
    home = project / ".runclaim"
    assert [0o700, 0o600] == [stat.S_IMODE(each.stat().st_mode) for each in (home, home / "ledger.db")]


def test_a_module_that_does_not_exist_ends_the_command_and_says_why(tmp_path: Path):
    told = run("dev", "-A", "nothing", "--no-flower", cwd=tmp_path)

    assert 1 == told.returncode
    assert "exited with status" in told.stderr
    assert "nothing" in told.stdout


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
