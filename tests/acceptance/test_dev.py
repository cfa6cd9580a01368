"""`runclaim dev` in one terminal, and what another one needs to be told: nothing."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import stat
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from sqlalchemy import make_url

from runclaim.local_folder import NAME
from runclaim.servers.machine import free_port, is_free
from runclaim.urls import sqlite_url
from tests.harness import Process, nurse, until

if TYPE_CHECKING:
    import subprocess
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
ENQUEUE = "import shop, datetime; print(shop.order.enqueue(number=21).wait(datetime.timedelta(seconds=60)))"


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNCLAIM_", "CELERY_"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


def run(*words: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return nurse.run([*PROGRAM, *words], env=environment(**more), folder=cwd)


_numbers = itertools.count()


class Dev(Process):
    """`runclaim dev` on a module in a folder of its own."""

    def __init__(self, folder: Path, *more: str) -> None:
        (folder / "shop.py").write_text(MODULE)
        words = ["dev", "-A", "shop", "-c", "2", "--no-flower", *more]
        log = folder / f"dev-{next(_numbers)}.log"
        super().__init__("dev", [*PROGRAM, *words], log=log, env=environment(), folder=folder)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose name a shell, a URL and a configuration file each read in a way of their own."""
    folder = tmp_path / 'My Pro%2Fjects; it\'s $HOME # "now"'
    folder.mkdir()
    return folder


@pytest.fixture
def port() -> int:
    """Of this test's own: the fixed one may be another test's now."""
    return free_port()


@pytest.fixture
def dev(project: Path, port: int) -> Iterator[Dev]:
    started = Dev(project, f"--port={port}")
    yield started
    started.kill_all()


def private(folder: Path) -> dict[str, int]:
    """The mode of a folder and of each file in it, where others may do anything with it."""
    places = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (folder, *folder.rglob("*"))}
    return {name: mode for name, mode in places.items() if mode & 0o077 and name != ".gitignore"}


@pytest.mark.timeout(300)
def test_one_command_is_all_that_a_second_terminal_needs(dev: Dev, project: Path, port: int):
    """
    INVARIANT: a process of the project uses the ledger and the broker of the `runclaim dev` that runs there.

    Nothing is exported, and the broker that the module names does not exist. Breaks if either side has a place of its
    own, or if what `runclaim dev` shares is not found.
    """
    dev.said(" ready.", within=120)
    dev.said("beat: Starting", within=120)
    enqueued = nurse.run([sys.executable, "-c", ENQUEUE], env=environment(), folder=project)
    sub = project / "sub"
    sub.mkdir()
    listed = [run("runs", "list", cwd=each) for each in (project, sub)]
    second = [run("dev", "-A", "shop", "--no-flower", cwd=each) for each in (project, sub)]
    dev.said("order/charge 21: success")
    children = dev.children()
    words = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
    shared = json.loads((project / NAME / "dev.json").read_text())
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    open_to_others = private(project / NAME)
    os.kill(dev.pid, signal.SIGINT)

    assert "42\n" == enqueued.stdout, enqueued.stderr
    assert [["succeeded", "order", "21"]] * 2 == [each.stdout.split("\t")[1:4] for each in listed]
    assert "" == enqueued.stderr + listed[0].stderr
    assert [4, 4] == [each.returncode for each in second]
    assert all(f"another runclaim dev runs in {project}: use it" in each.stderr for each in second)
    assert not (sub / NAME).exists()
    assert {} == open_to_others
    assert 0 == dev.wait(), dev.tail
    until(lambda: not any(_lives(pid) for pid in children), "the end of every child")
    assert "Traceback" not in dev.text
    broker = make_url(shared["variables"]["CELERY_BROKER_URL"])
    assert port == broker.port
    assert not [each for each in words if str(broker.password) in each]


@pytest.mark.timeout(300)
def test_a_killed_dev_leaves_nothing_that_works_or_misleads(
    dev: Dev, project: Path, port: int, request: pytest.FixtureRequest
):
    """
    INVARIANT: what a killed `runclaim dev` leaves behind is ended or ignored, and the next one starts at once.

    Breaks if its worker goes on beside the next one's, or if its broker's address is still used without it.
    """
    dev.said(" ready.", within=120)
    children = dev.children()
    for pid in children:
        request.addfinalizer(partial(_end, pid))
    os.kill(dev.pid, signal.SIGKILL)
    dev.wait()
    until(lambda: not any(_lives(pid) for pid in children), "the end of every child", within=60)
    told = nurse.run(
        [sys.executable, "-c", "import shop, os; print(os.environ.get('CELERY_BROKER_URL'), shop.runs.config)"],
        env=environment(),
        folder=project,
    )
    before = json.loads((project / NAME / "dev.json").read_text())
    following = Dev(project)
    following.said("worker  |", within=120)
    after = json.loads((project / NAME / "dev.json").read_text())
    os.kill(following.pid, signal.SIGINT)
    ended = following.wait(within=120)

    assert told.stdout.startswith("None "), told.stderr
    assert sqlite_url(project / NAME / "ledger.db") in told.stdout
    assert before == after
    assert 0 == ended
    assert is_free(port)


def test_a_port_that_is_taken_is_named_with_another(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = run("dev", "-A", "shop", "--no-flower", f"--port={port}", cwd=tmp_path)

    assert [4, ""] == [told.returncode, told.stdout]
    assert f"the port {port} for the private broker is taken" in told.stderr
    assert f"runclaim dev --port {port + 1} …" in told.stderr


def test_the_port_of_flower_that_is_taken_is_named_before_anything_starts(tmp_path: Path):
    with ExitStack() as stack:
        with suppress(OSError):  # then another process has it
            stack.enter_context(socket.create_server(("127.0.0.1", 5555)))
        told = run("dev", "-A", "shop", "--flower", cwd=tmp_path)

    assert [4, ""] == [told.returncode, told.stdout]
    assert "the port 5555 is taken; to have Flower on another: runclaim flower -A shop --port=5556" in told.stderr


def test_a_module_that_does_not_exist_ends_the_command_and_says_why(tmp_path: Path, port: int):
    told = run("dev", "-A", "nothing", "--no-flower", f"--port={port}", cwd=tmp_path)

    assert 1 == told.returncode
    assert "exited with status" in told.stderr
    assert "nothing" in told.stdout


def _end(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
