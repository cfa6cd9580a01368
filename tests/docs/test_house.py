"""The house holds its own measures: how large files, functions and folders are, and how files are named."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "runclaim").rglob("*.py"))
#: What was migrated stays as it was written.
MODULES = [path for path in PACKAGE if "versions" not in path.parts]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MOST_LINES, MOST_LINES_OF_TESTS, MOST_LINES_OF_A_FUNCTION, MOST_FILES = 250, 500, 50, 28
#: Files that end in -ing and are named for a thing, not for what is done in them.
NOUNS = {"ending", "finding", "routing", "spelling", "testing", "tracing"}


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_module_is_longer_than_can_be_read_at_once():
    """INVARIANT: a module has at most 250 lines. Breaks when one takes in what should have a module of its own."""
    assert {} == {label(path): lines(path) for path in MODULES if lines(path) > MOST_LINES}


def test_no_function_is_longer_than_a_page():
    """INVARIANT: a function has at most 50 lines. Breaks when one does what several should do."""
    assert {} == {
        f"{label(path)}: {node.name}": length
        for path in MODULES
        for node in functions(path)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES_OF_A_FUNCTION
    }


def test_no_folder_holds_more_files_than_can_be_looked_over():
    """INVARIANT: a folder of the package has at most 28 modules. Breaks when a room should be two."""
    folders = Counter(label(path.parent) for path in MODULES if path.stem != "__init__")

    assert {} == {folder: many for folder, many in folders.items() if many > MOST_FILES}


def test_a_file_is_named_for_what_it_is():
    """INVARIANT: a file's name is a noun or a verb of the ledger. Breaks with one such as `making` or `telling`."""
    gerunds = {path.stem for path in MODULES if path.stem.endswith("ing")}

    assert set() == gerunds - NOUNS
    assert NOUNS <= gerunds | {path.name for path in (ROOT / "runclaim").iterdir()}, "a name is listed that is gone"


def test_no_file_of_tests_has_grown_past_its_subject():
    assert {} == {label(path): lines(path) for path in TESTS if lines(path) > MOST_LINES_OF_TESTS}


@pytest.mark.parametrize("room", ["flows", "ledger", "sql"])
def test_a_file_of_tests_lies_in_the_room_of_what_it_tests(room: str):
    """A folder of tests for a folder of the package: where there is none, somebody has to search."""
    rooms = {path.name for path in (ROOT / "runclaim" / room).iterdir() if (path / "__init__.py").exists()}
    folders = {path.name for path in (ROOT / "tests" / room).glob("*") if path.is_dir() and path.name != "__pycache__"}

    assert set() == folders - rooms
