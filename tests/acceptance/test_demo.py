"""The demo as a command: what it promises in its last line, and that it can fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "review"
LAST_LINE = re.compile(r"demo: (\d+) runs, (\d+) phases, (\d+) faults: (\d+) lost, (\d+) doubled")
#: What the flow's phases write, each with its completion.
ROW = "ctx.in_completion(lambda session: record.add(session, record.review_rows, ctx.key, ctx.phase))"

# The demo starts a Valkey of its own.
pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Four commits; the first three each add a file with something to find."""
    folder = tmp_path_factory.mktemp("repository")
    git(folder, "init", "--quiet")
    for number, source in enumerate(
        ("import os\n", "print(undefined)\n", "def broken(:\n", "import os\nprint(nobody)\n")
    ):
        (folder / f"module_{number}.py").write_text(source)
        git(folder, "add", "--all")
        git(folder, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "-m", str(number))
    return folder


def test_the_demo_ends_with_nothing_lost_and_nothing_doubled(repository, tmp_path):
    done = demo(EXAMPLE, repository, tmp_path, "--strikes", "2")

    found = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert found is not None, done.stdout + done.stderr
    runs, phases, faults, lost, doubled = map(int, found.groups())
    assert (4, 12, 0, 0) == (runs, phases, lost, doubled)
    assert faults > 0
    assert 0 == done.returncode
    assert "bare celery.chain" in done.stdout
    assert "does not compile" in done.stdout
    # The plan's first posts each meet a fault: some are applied and not answered, so somebody has to ask.
    posted, silent, looked_up = (cell(done.stdout, row) for row in ("posted", "… of these applied", "looked up"))
    assert min(silent, looked_up, posted - silent) > 0
    assert [0, 0] == [cell(done.stdout, row) for row in ("lost", "doubled")]
    assert "1 forged and refused" in done.stdout


def test_the_demo_fails_when_a_comment_is_sent_again_without_a_lookup(repository, tmp_path):
    """
    INVARIANT: the forge is asked what it has, so a doubled comment is found although the ledger knows of one.

    Breaks if comments are counted by the ledger's actions, or if the forge hides a repeated one.
    """
    broken = Path(shutil.copytree(EXAMPLE, tmp_path / "review"))
    app = broken / "reviewer" / "app.py"
    asks = "return posting.find(Comment(**payload), idempotency_key)"
    assert asks in app.read_text()
    app.write_text(app.read_text().replace(asks, "return None"))

    done = demo(broken, repository, tmp_path, "--strikes", "1", "--no-chain")

    assert cell(done.stdout, "doubled") > 0
    assert "demo: doubled: a comment on " in done.stdout
    assert 1 == done.returncode


def test_the_demo_fails_when_rows_are_lost_and_doubled(repository, tmp_path):
    """
    INVARIANT: the verdict comes from the rows, whatever the ledger says.

    Breaks if the demo believes the states of the runs: here they all succeed, while `plan` writes two rows and
    `compound` none.
    """
    broken = Path(shutil.copytree(EXAMPLE, tmp_path / "review"))
    app = broken / "reviewer" / "app.py"
    plan, deliver, compound, rest = app.read_text().split(ROW)
    app.write_text(plan + f"{ROW}\n    {ROW}" + deliver + ROW + compound + rest)

    done = demo(broken, repository, tmp_path, "--strikes", "1", "--no-chain")

    found = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert found is not None, done.stdout + done.stderr
    lost, doubled = map(int, found.groups()[3:])
    assert 4 == lost
    # The one that a push overtook may have had its plan by then.
    assert doubled in {4, 5}
    assert 1 == done.returncode


def test_the_demo_says_what_to_do_without_a_repository(tmp_path):
    done = demo(EXAMPLE, tmp_path, tmp_path)

    assert "REPO=path" in done.stderr
    assert 1 == done.returncode


def cell(text: str, row: str) -> int:
    """Runclaim's number in a row of the comments' table."""
    table = text.partition("The comments, counted by asking the forge")[2]
    found = re.search(rf"^ +{row}.*?  +(\d+)", table, re.MULTILINE)
    assert found is not None, text
    return int(found[1])


def demo(example: Path, repository: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A run of the demo that leaves what it keeps in `folder`."""
    command = [sys.executable, example / "demo.py", "--repo", repository, "--seed", "4", *options]
    environment = os.environ | {"TMPDIR": str(folder), "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)
