"""The tests keep the rules by which tests are written, as far as they can be read from the source."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests").rglob("*.py"))
#: Where time is what the code is about: bodies that last, and the two polls with a deadline that all others call.
MAY_SLEEP = {"tests/harness/bodies.py", "tests/harness/until.py", "tests/ledger/concurrency.py"}
#: Beside a call under test a loop ticks, to show that it is not held up; the test waits for nothing.
MAY_SLEEP_IN_A_LOOP = {"tests/flows/client/test_async.py"}
_MADE_OF_CONSTANTS = {"dict", "frozenset", "list", "set", "timedelta", "tuple"}


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """Each function and class of a file that has a docstring, with it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
            text := ast.get_docstring(node)
        ):
            yield node.name, text


def is_known(node: ast.expr) -> bool:  # noqa: PLR0911 - a line for each kind of expression
    """Whether the value stands in the source: a literal, a CONSTANT, a member of an enum, or made of these alone."""
    match node:
        case ast.Constant():
            return True
        case ast.Name():
            return node.id.isupper() and len(node.id) > 1
        case ast.Attribute():
            return node.attr.isupper() and isinstance(node.value, ast.Name | ast.Attribute)
        case ast.List() | ast.Tuple() | ast.Set():
            return all(map(is_known, node.elts))
        case ast.Dict():
            return all(key is not None and is_known(key) for key in node.keys) and all(map(is_known, node.values))
        case ast.UnaryOp():
            return is_known(node.operand)
        case ast.BinOp():
            return is_known(node.left) and is_known(node.right)
        case ast.Call(func=ast.Name()) if node.func.id in _MADE_OF_CONSTANTS:
            return all(map(is_known, node.args)) and all(is_known(each.value) for each in node.keywords)
    return False


def is_spelled_out(node: ast.expr) -> bool:
    """Whether it is written as a value, though with names in it: `[run.id, "a"]`, f"run {run.id}"."""
    while isinstance(node, ast.BinOp):
        node = node.left
    return is_known(node) or isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict | ast.JoinedStr)


def is_backward(compared: ast.Compare) -> bool:
    """Whether the expected value stands on the right."""
    if len(compared.ops) != 1 or not isinstance(compared.ops[0], ast.Eq):
        return False
    left, right = compared.left, compared.comparators[0]
    return (is_known(right) and not is_known(left)) or (is_spelled_out(right) and not is_spelled_out(left))


def compared_in(test: ast.expr) -> Iterator[ast.Compare]:
    match test:
        case ast.Compare():
            yield test
        case ast.BoolOp():
            for each in test.values:
                yield from compared_in(each)
        case ast.UnaryOp():
            yield from compared_in(test.operand)


def backward(source: ast.Module) -> list[str]:
    found = [
        compared
        for node in ast.walk(source)
        if isinstance(node, ast.Assert)
        for compared in compared_in(node.test)
        if is_backward(compared)
    ]
    return [f"line {each.lineno}: {ast.unparse(each)}" for each in found]


def sleeps(source: ast.Module) -> list[int]:
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call.func) in {"time.sleep", "asyncio.sleep", "sleep"}]


def test_every_invariant_says_what_breaks_it():
    """
    INVARIANT: whoever reads an invariant can check that its test would fail.

    Breaks if a docstring names an invariant and not the change to the code that would break it.
    """
    named = [(path, name, text) for path in FILES for name, text in documented(path) if "INVARIANT:" in text]

    assert len(named) > 400
    assert [] == [f"{label(path)}: {name}" for path, name, text in named if "Breaks " not in text]


@pytest.mark.parametrize("path", FILES, ids=label)
def test_the_expected_value_stands_first(path: Path):
    """So pytest's difference is read the same way everywhere: what was expected, then what came."""
    assert [] == backward(tree(path))


@pytest.mark.parametrize(
    "line, is_refused",
    [
        ("assert found == 1", True),
        ("assert found == [run.id]", True),
        ("assert run.state == RunState.QUEUED", True),
        ("assert run.error is None and found == {'a': LEASE}", True),
        ("assert 1 == found", False),
        ("assert [run.id] == found", False),
        ("assert first == second", False),
        ("assert found is None", False),
        ("assert [1] == [each for each in found if each == 1]", False),
    ],
)
def test_what_stands_first_is_told_by_the_source(line: str, is_refused: bool):
    assert is_refused == bool(backward(ast.parse(line)))


def test_no_test_sleeps():
    """
    INVARIANT: a test waits for a signal, or polls with a deadline.

    Breaks if one hopes that a while is enough: on a busy machine it is not, and on an idle one it is lost time.
    """
    found = {label(path) for path in FILES if sleeps(tree(path))}

    assert MAY_SLEEP | MAY_SLEEP_IN_A_LOOP == found


def test_no_test_replaces_what_it_tests():
    """INVARIANT: our own modules are never mocked. Breaks if a test imports unittest.mock."""
    mocked = [
        label(path)
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import | ast.ImportFrom) and "mock" in ast.unparse(node).split()[1]
    ]

    assert [] == mocked
