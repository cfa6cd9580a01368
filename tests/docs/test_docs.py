"""The documents tell the truth of the code: states, settings, options, commands, links, the README's module."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import runclaim
from runclaim.config import Config
from runclaim.events import EventType
from runclaim.failpoints import NAMES
from runclaim.flows.declare.phase import PhaseOptions
from runclaim.states import MOVES, TERMINAL, RunState

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text()


def test_the_diagram_of_a_run_draws_exactly_the_legal_moves():
    """INVARIANT: docs/lifecycle.md and states.py are one table. Breaks when a move stands in one of them only."""
    drawn = re.findall(r"^\s+(\w+) --> (\w+): (.+)$", page("docs/lifecycle.md"), re.MULTILINE)
    moves = {(verb.strip(), old, new) for old, new, verbs in drawn for verb in verbs.split(",")}
    # A cancel of a running run changes no state, and every run begins with an enqueue.
    known = {(verb, old.value, new.value) for verb, pairs in MOVES.items() for old, new in pairs}

    assert known - {("cancel", "running", "running")} == moves


def test_the_diagram_ends_where_the_terminal_states_are():
    ends = set(re.findall(r"^\s+(\w+) --> \[\*\]$", page("docs/lifecycle.md"), re.MULTILINE))

    # A failed run may still be retried.
    assert {state.value for state in TERMINAL} - {"failed"} == ends


@pytest.mark.parametrize("state", RunState)
def test_every_state_is_explained(state: RunState):
    assert f"| `{state}` |" in page("docs/lifecycle.md")
    assert state.value in page("GLOSSARY.md")


@pytest.mark.parametrize("event", EventType)
def test_every_event_is_named(event: EventType):
    assert f"`{event}`" in page("docs/lifecycle.md")


@pytest.mark.parametrize("setting", dataclasses.fields(Config), ids=lambda field: field.name)
def test_every_setting_is_explained_with_its_default(setting: dataclasses.Field):
    row = next(line for line in page("docs/settings.md").splitlines() if line.startswith(f"| `{setting.name}` |"))

    assert _said(setting.default) == row.split("|")[2].strip().strip("`")


def _said(default: object) -> str:
    if isinstance(default, int) and not isinstance(default, bool):
        return str(default)
    if isinstance(default, str):
        return default
    if isinstance(default, bool):
        return str(default).lower()
    seconds = int(default.total_seconds())
    units = [(86_400, "d"), (3_600, "h"), (1, "s")]
    return next(f"{seconds // size} {unit}" for size, unit in units if seconds % size == 0 and seconds >= size)


@pytest.mark.parametrize("option", dataclasses.fields(PhaseOptions), ids=lambda field: field.name)
def test_every_option_of_a_phase_is_explained(option: dataclasses.Field):
    assert f"| `{option.name}` |" in page("docs/flows.md")


@pytest.mark.parametrize("name", [name for name in runclaim.__all__ if name != "RunclaimError"])
def test_every_public_name_is_used_somewhere_in_the_documents(name: str):
    assert any(name in path.read_text() for path in PAGES)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_documents_leads_somewhere(path: Path):
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", path.read_text())

    assert [] == [link for link in links if not (path.parent / link).exists()]


def test_every_test_that_the_guarantees_name_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page("docs/guarantees.md"))
    missing = [(file, test) for file, test in named if not _has(ROOT / file, test)]

    assert named
    assert [] == missing


def _has(path: Path, test: str) -> bool:
    return path.exists() and (not test or f"def {test}(" in path.read_text())


def test_the_module_of_the_readme_declares_the_flow_that_the_readme_enqueues(tmp_path: Path):
    code = re.search(r"```python\n(# reviews\.py\n.*?)```", page("README.md"), re.DOTALL)
    assert code is not None
    (tmp_path / "reviews.py").write_text(code[1])
    asked = (
        "import reviews; print(*reviews.review.phases,"
        " *sorted(name for name in reviews.app.tasks if name.startswith('runclaim.')))"
    )
    told = subprocess.run([sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert (
        "plan deliver runclaim.deliver runclaim.dispatch runclaim.forget runclaim.purge runclaim.rescue runclaim.tell\n"
        == told.stdout
    )


def test_the_failpoints_are_passed_somewhere_in_the_code():
    code = "\n".join(path.read_text() for path in (ROOT / "runclaim").rglob("*.py"))

    assert [] == [name for name in NAMES if f'failpoints.hit("{name}")' not in code]
