"""A mutant: one file with one change. They are made from the text alone, in an order that never varies."""

from __future__ import annotations

import ast
import difflib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from mutants.operators import operators

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """One change: where it is, and how Cosmic Ray makes it again."""

    path: str
    line: int
    function: str
    operator: str
    occurrence: int

    def text(self, source: str) -> str | None:
        """The changed file, or `None` where the change is none, or is not Python."""
        try:
            changed = mutate_code(source, dict(operators())[self.operator], self.occurrence)
            same = changed is None or ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source))
        except (SyntaxError, ValueError, AttributeError, IndexError):
            return None
        return None if same else changed


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Every mutant of a file, outside annotations and what only type checkers read."""
    tree, left_out = ast.parse(source), _not_run(source)
    places = functions(tree)
    counts: dict[str, int] = {}
    every = []
    nodes = list(ast_nodes(get_ast(source)))
    for name, operator in operators():
        for node in nodes:
            for (line, column), _ in _positions(operator, node):
                occurrence = counts[name] = counts.get(name, -1) + 1
                if not any(start <= (line, column) < end for start, end in left_out):
                    every.append(Mutant(path, line, function_at(places, line), name, occurrence))
    return every


def sample(every: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """At most `size`, in an order drawn by `seed`: each line is as likely as any other, and comes once first."""
    drawn = random.Random(seed)  # noqa: S311 - a sample, no secret
    lines: dict[tuple[str, int], list[Mutant]] = {}
    for mutant in every:
        lines.setdefault((mutant.path, mutant.line), []).append(mutant)
    for at in lines.values():
        drawn.shuffle(at)
    order = sorted(lines)
    drawn.shuffle(order)
    rounds = max(map(len, lines.values()), default=0)
    return [lines[at][turn] for turn in range(rounds) for at in order if turn < len(lines[at])][:size]


def changed_lines(before: str, after: str) -> tuple[str, str]:
    """What was and what is, without the white space: a mutant's identity in its function, whatever moves around it."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    gone = " ".join(line[2:].strip() for line in lines if line.startswith("- "))
    new = " ".join(line[2:].strip() for line in lines if line.startswith("+ "))
    return gone, new


def difference(path: str, before: str, after: str) -> str:
    """The mutant as a diff."""
    names = {"fromfile": f"a/{path}", "tofile": f"b/{path}"}
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), **names, lineterm="", n=2))


def function_at(places: Sequence[tuple[int, int, str]], line: int) -> str:
    """The innermost function or class that the line belongs to; nothing at the top of a module."""
    around = [(start, name) for start, end, name in places if start <= line <= end]
    return max(around)[1] if around else ""


def functions(tree: ast.AST, within: str = "") -> list[tuple[int, int, str]]:
    """First line, last line and qualified name of each function and class."""
    every = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{within}{node.name}"
            every += [(node.lineno, node.end_lineno or node.lineno, name), *functions(node, f"{name}.")]
        else:
            every += functions(node, within)
    return every


def _positions(operator: Any, node: Any) -> Iterator[Any]:
    try:
        yield from list(operator.mutation_positions(node))
    except (AttributeError, IndexError):  # `except some.module.Error`, which Cosmic Ray's operator does not read
        return


def _not_run(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a change would change nothing that runs: annotations, and what stands under TYPE_CHECKING."""
    unread: list[Any] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            unread.append(node.returns)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            unread.append(node.annotation)
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            unread.append(node)
        elif isinstance(node, ast.ClassDef):
            unread += [
                d for d in node.decorator_list if isinstance(d, ast.Call) and getattr(d.func, "id", "") == "dataclass"
            ]
    return [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in unread if n]


def sources(root: Path, patterns: Sequence[str]) -> dict[str, str]:
    """The files that match, with their text."""
    found = {path for pattern in patterns for path in root.glob(pattern) if path.suffix == ".py"}
    return {str(path.relative_to(root)): path.read_text() for path in sorted(found)}
