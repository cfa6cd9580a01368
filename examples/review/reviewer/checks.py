"""
Examines one Python file for real, with pyflakes as a library and a few habits of its own.

Findings are: code that does not compile (critical); names that are not defined, calls of % and .format that do not
fit, and every other pyflakes message that means a failure at run time (major); imports, variables and f-strings
without use, and the rest of its messages (minor); functions that are long or take much, and handlers that catch
everything (minor). All of the changed file counts, not only its changed lines.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pyflakes import checker, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST_FUNCTION = 30
_MOST_PARAMETERS = 6

Severity = Literal["critical", "major", "minor"]

#: What fails, or silently does the wrong thing, once the line runs.
_MAJOR = (
    messages.AssertTuple,
    messages.DefaultExceptNotLast,
    messages.DuplicateArgument,
    messages.IfTuple,
    messages.InvalidPrintSyntax,
    messages.IsLiteral,
    messages.MultiValueRepeatedKeyLiteral,
    messages.PercentFormatInvalidFormat,
    messages.PercentFormatMissingArgument,
    messages.PercentFormatPositionalCountMismatch,
    messages.RaiseNotImplemented,
    messages.ReturnOutsideFunction,
    messages.StringDotFormatInvalidFormat,
    messages.StringDotFormatMissingArgument,
    messages.UndefinedExport,
    messages.UndefinedLocal,
    messages.UndefinedName,
    messages.YieldOutsideFunction,
)


@dataclass(frozen=True)
class Finding:
    """One thing to look at; `line` counts from 1."""

    path: str
    line: int
    severity: Severity
    title: str


def examine(path: str, source: bytes) -> list[Finding]:
    """What is wrong with the file, in the order of its lines."""
    try:
        with warnings.catch_warnings(action="ignore"):  # an odd escape is pyflakes' to report, not the log's
            tree = ast.parse(source, filename=path)
        found = checker.Checker(tree, filename=path).messages
    except SyntaxError as error:
        return [Finding(path, error.lineno or 1, "critical", f"does not compile: {error.msg}"[:200])]
    except (ValueError, RecursionError, MemoryError) as error:
        return [Finding(path, 1, "critical", f"cannot be read: {type(error).__name__}: {error}"[:200])]
    said = [Finding(path, each.lineno, _severity(each), str(each.message % each.message_args)[:200]) for each in found]
    habits = [Finding(path, line, "minor", title) for node in ast.walk(tree) for line, title in _habits(node)]
    return sorted({*said, *habits}, key=lambda each: (each.line, each.title))


def _habits(node: ast.AST) -> Iterator[tuple[int, str]]:
    """What no run-time failure follows from, and what a reader stumbles over."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > _LONGEST_FUNCTION:
            yield node.lineno, f"{node.name} has {lines} lines"
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if len(parameters) > _MOST_PARAMETERS:
            yield node.lineno, f"{node.name} takes {len(parameters)} arguments"
    elif isinstance(node, ast.ExceptHandler):
        caught = node.type.id if isinstance(node.type, ast.Name) else ""
        if node.type is None or caught in {"Exception", "BaseException"}:
            yield node.lineno, f"catches every {caught or 'exception'}"


def _severity(message: messages.Message) -> Severity:
    return "major" if isinstance(message, _MAJOR) else "minor"
