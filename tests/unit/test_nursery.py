"""Processes that are forked for the tests are what their command lines would have made of them."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.harness import nursery
from tests.harness.nurse import run, spawn

if TYPE_CHECKING:
    from pathlib import Path

CODE = """
import os, sys
print(os.environ["WORD"], os.getcwd(), sys.argv, sys.stdin.read(), os.getsid(0) == os.getpid())
print(sorted(name for name in sys.modules if name.partition(".")[0] in {"runclaim", "tests"}), file=sys.stderr)
sys.exit(7)
"""


def test_a_forked_command_has_its_own_environment_folder_words_session_and_end(tmp_path: Path):
    """
    INVARIANT: what a test sees of a process does not depend on how it was started.

    Breaks if anything of runclaim's is imported before the fork: it would have read the environment of another.
    """
    done = run([sys.executable, "-c", CODE, "a", "b c"], env={"WORD": "yes"}, folder=tmp_path, stdin="typed")

    assert f"yes {tmp_path} ['-c', 'a', 'b c'] typed True\n" == done.stdout
    assert (7, "[]\n") == (done.returncode, done.stderr)


def test_a_forked_process_that_is_killed_says_so(tmp_path: Path):
    log = tmp_path / "log"
    process = spawn([sys.executable, "-c", "import time; time.sleep(60)"], log=log, env={}, folder=tmp_path)
    before = process.poll()
    process.kill()

    assert (None, -signal.SIGKILL) == (before, process.wait(30))


@pytest.mark.parametrize(
    "command,env",
    [
        pytest.param([sys.executable, "-m", "celery", "-A", "x", "worker", "-P", "gevent"], {}, id="patches"),
        pytest.param([sys.executable, "-m", "celery", "-A", "x", "worker"], {"PYTHONHASHSEED": "-1"}, id="hashes"),
        pytest.param([sys.executable, "worker.py"], {}, id="a file"),
        pytest.param(["sh", "-c", "true"], {}, id="another program"),
    ],
)
def test_what_a_fork_cannot_be_is_started(command: list[str], env: dict[str, str]):
    assert not nursery.takes(command, {"PATH": os.environ["PATH"], **env})
