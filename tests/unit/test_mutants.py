"""The mutation tester, on a module that was planted for it, so that it works on the day that somebody needs it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mutants.mutant import changed_lines, mutants_of, sample, sources
from mutants.recording import Recording
from mutants.run import Run, argued_in

ROOT = Path(__file__).parents[2]

PLANTED = '''
def is_late(now: int, due: int) -> bool:
    """Tested far from the moment itself."""
    return now > due
'''
TWO_LINES = f"""
LIMIT = 30
{PLANTED}
"""
ITS_TESTS = """
from runclaim.ledger.planted import is_late

def test_late_is_after():
    assert is_late(9, 1)
    assert not is_late(1, 9)
"""
ITS_SETTINGS = """
[tool.pytest]
strict = true
markers = ["slow: takes long"]
addopts = ["-p", "no:schemathesis", "-p", "no:valkey", "-p", "no:hypothesispytest"]
"""
ARGUED = """
[[survivor]]
file = "runclaim/ledger/planted.py"
function = "is_late"
was = "return now > due"
is = "return now >= due"
reason = "nobody is due at this very moment"
"""


@pytest.fixture
def planted(tmp_path) -> Path:
    """A project with one module, of which one line is not tested to the letter."""
    for path, text in {
        "runclaim/__init__.py": "",
        "runclaim/ledger/__init__.py": "",
        "runclaim/ledger/planted.py": PLANTED,
        "tests/ledger/test_planted.py": ITS_TESTS,
        "pyproject.toml": ITS_SETTINGS,
    }.items():
        place = tmp_path / "project" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return tmp_path / "project"


def digests(project: Path) -> dict[str, str]:
    files = (p for p in project.rglob("*") if p.is_file() and ".cache" not in p.parts)
    return {str(p.relative_to(project)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def mutants(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mutants", "--root", str(project), "--files", "runclaim/ledger/planted.py"]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_no_test_notices_is_shown_as_a_diff_and_the_working_tree_stays_as_it_was(planted):
    before = digests(planted)
    done = mutants(planted)

    assert "-    return now > due\n+    return now >= due" in done.stdout, done.stdout + done.stderr
    assert 1 == done.stdout.count("\n+++ ")
    assert ["[1/3] ", "[2/3] ", "[3/3] "] == re.findall(r"^\[./3\] ", done.stdout, flags=re.MULTILINE)
    assert 1 == done.returncode
    assert before == digests(planted)


def test_a_survivor_that_is_argued_is_no_failure(planted):
    place = planted / "mutants" / "survivors.toml"
    place.parent.mkdir()
    place.write_text(ARGUED)
    run = Run(planted, {"runclaim/ledger/planted.py": PLANTED}, Recording([]), seconds=60, argued=argued_in(place))
    reasons = {run.reason(m, m.text(PLANTED)) for m in mutants_of("runclaim/ledger/planted.py", PLANTED)}

    assert {"", "nobody is due at this very moment"} == reasons


def test_every_argued_survivor_still_names_a_mutant_and_says_why():
    argued = argued_in(ROOT / "mutants" / "survivors.toml")
    texts = sources(ROOT, sorted({file for file, *_ in argued}))
    every = {
        (path, mutant.function, *changed_lines(text, changed))
        for path, text in texts.items()
        for mutant in mutants_of(path, text)
        if mutant.function in {function for file, function, *_ in argued if file == path}
        and (changed := mutant.text(text))
    }

    assert set() == argued.keys() - every
    assert [] == [entry for entry, reason in argued.items() if len(reason) < 20]


def test_a_sample_is_the_same_for_the_same_seed_and_takes_a_line_once_before_it_takes_one_twice():
    every = mutants_of("planted.py", TWO_LINES)
    lines = {mutant.line for mutant in every}

    assert sample(every, 100, 7) == sample(every, 100, 7)
    assert sorted(sample(every, 100, 7), key=str) == sorted(every, key=str)
    assert {mutant.line for mutant in sample(every, len(lines), 7)} == lines


@pytest.mark.parametrize(
    "source,mutated",
    [
        ("select(runs).where(a == b, c)", "select(runs).where(a == b)"),
        ("select(runs).where(a, c).with_for_update(skip_locked=True)", "select(runs).where(a, c).with_for_update()"),
        ("select(runs).where(a, c).with_for_update()", "select(runs).where(a, c)"),
        ("select(runs).where(a, c).limit(at_most)", "select(runs).limit(at_most)"),
        ("and_(a, b)", "or_(a, b)"),
        ("runs.c.subject.is_(None)", "runs.c.subject.is_not(None)"),
        ("if name in known:\n    pass", "if name not in known:\n    pass"),
        ("move(old, new)", "move( new,old)"),
        ("def drop():\n    conn.execute(_DELETE)\n", "def drop():\n    pass\n"),
        ("def refuse():\n    raise KeyConflict(key)\n", "def refuse():\n    pass\n"),
        ("def answer():\n    return found\n", "def answer():\n    return None\n"),
        ("HORIZON = 30", "HORIZON = 300"),
        ("if depth > 1:\n    pass", "if depth > 2:\n    pass"),
        ("if a or b:\n    pass", "if a and b:\n    pass"),
    ],
)
def test_each_slip_that_costs_a_promise_is_among_the_mutants(source, mutated):
    assert mutated in [mutant.text(source) for mutant in mutants_of("planted.py", source)]


@pytest.mark.parametrize(
    "source",
    [
        "def f(a: X | None) -> Y | None: ...",
        "if TYPE_CHECKING:\n    LIMIT = 30",
        "log.warning('%s is late', 'run')",
        "failpoints.hit('claim.after_commit')",
        "@dataclass(frozen=True)\nclass Claim: ...",
    ],
)
def test_what_never_runs_or_is_only_told_has_no_mutants(source):
    assert [] == [m.text(source) for m in mutants_of("planted.py", source) if m.operator != "SwapArguments"]


def test_a_mutant_is_known_by_its_changed_text_wherever_it_stands():
    moved = f"# a comment\n\n{PLANTED}"
    one, other = (
        {changed_lines(text, m.text(text) or "") for m in mutants_of("planted.py", text)} for text in (PLANTED, moved)
    )

    assert one == other
