"""The phrases that no text for users may use, each with the reason, and where texts for users are."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from runclaim.api import create_app
from runclaim.cli import command
from runclaim.config import Config
from website.contents import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A number and perhaps a noun; a preposition between them and the thing makes another sentence.
_COUNTED: Final = (
    r"(?:one|two|three|once|twice|\d+)"
    r"(?: (?!(?:of|with|within|for|from|on|in|at|to|that|under|as|is|after|before|when|by)\b)[a-z]+)?"
)
_THING: Final = (
    r"(?:run|key|phase|token|project|line|row|flow|finding|name|message|subject|process|worker|window|request|secret|"
    r"attempt|claim|machine|kind|queue|lease|delivery|body|field|host|child|file|table|column)"
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A pattern, and what to write in its place."""

    pattern: str
    instead: str

    def found_in(self, text: str) -> bool:
        """Whether the text uses it, in any case of letters."""
        return re.search(self.pattern, text, re.IGNORECASE) is not None


BANNED: Final = (
    Phrase(r"(?<!here )\b(?:is|are|was|were) none\b", "say what it is: is not a valid token"),
    Phrase(r"(?<!here )\b(?:is|are|was|were) no (?!longer\b|more\b|one\b)[a-z]", "is not a …"),
    Phrase(rf"\b{_COUNTED}(?-i: an? ){_THING}\b", "per: one comment per finding"),
    Phrase(r"[,;:] also\b", "even, including, or a sentence of its own"),
    Phrase(r"\blonger than nothing\b|\bfrom nothing to\b", "greater than zero; from zero to"),
    Phrase(r"\bso (?:long|many)\b(?! that)", "this long, this many, or the unit: in seconds"),
    Phrase(r"\bas good as once\b", "repeating it is harmless"),
    Phrase(r"(?<!-)\bstands\b(?! for\b)", "is, or the verb for what happens"),
    Phrase(r"\b(?:goes|gone|went) on\b", "continues, moves on"),
    Phrase(r"\b(?:whoever|nobody|somebody|anybody)\b", "the actor: the caller; or anyone, no one"),
    Phrase(r"\bmend(?:s|ed|ing)?\b", "fix, correct"),
    Phrase(r"\banew\b", "again"),
    Phrase(r"\b(?:as ever|all the same|likewise)\b", "as usual; anyway; in the same way"),
    Phrase(r"\b(?:burn|burns|burnt)\b", "uses up"),
    Phrase(r"\b(?-i:DESIGN)\b", "a document that is in the repository"),
)

PAGES: Final = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    # The changelog tells of older releases in their words.
    if path.name != "CHANGELOG.md"
)
MODULES: Final = sorted((ROOT / "runclaim").rglob("*.py"))


def sentences(page: Path) -> Iterator[str]:
    """The prose of a page, a paragraph or a table's row at a time: no code, and no address of a link."""
    text = re.sub(r"^( *)```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " x ", text)
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*|] |\d+\. ))", text):
        yield " ".join(paragraph.split())


def help_texts(group: click.Command, path: tuple[str, ...] = ("runclaim",)) -> Iterator[tuple[str, str]]:
    """Each text that `--help` prints, with its command."""
    yield " ".join(path), " ".join([group.help or "", group.short_help or "", group.epilog or ""])
    for parameter in group.params:
        yield f"{' '.join(path)} {parameter.name}", getattr(parameter, "help", None) or ""
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            if (inner := group.get_command(context, name)) is not None:
                yield from help_texts(inner, (*path, name))
        for name, (_, text) in getattr(group, "table", {}).items():
            yield f"{' '.join(path)} {name}", text


def every_help_text() -> list[tuple[str, str]]:
    """The texts of the whole command line."""
    return list(help_texts(command))


def api_texts() -> list[tuple[str, str]]:
    """Each title, summary, description and detail of the OpenAPI document, with the way to it."""

    def walk(value: Any, way: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name in {"title", "summary", "description", "detail"} and isinstance(inner, str):
                    yield f"{way}/{name}", inner
                yield from walk(inner, f"{way}/{name}")
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                yield from walk(inner, f"{way}/{index}")

    return list(walk(create_app(Config(database_url="sqlite:///none.db")).openapi(), ""))


def docstrings(module: Path) -> list[tuple[str, str]]:
    """Each docstring of a module, with its line."""
    found = [
        (node.body[0].lineno, text)
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (text := ast.get_docstring(node)) is not None
    ]
    return [(f"{module.relative_to(ROOT)}:{line}", " ".join(text.split())) for line, text in sorted(found)]


def messages(module: Path) -> list[tuple[str, str]]:
    """Each text of a module that has at least three words and is no docstring, with its line."""
    tree = ast.parse(module.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node) is not None
        and isinstance(node.body[0], ast.Expr)
    }
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in formatted for part in ast.walk(node) if part is not node}
    texts = [
        (node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else " x " for part in node.values))
        for node in formatted
    ]
    texts += [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts
    ]
    where = module.relative_to(ROOT)
    return [(f"{where}:{line}", " ".join(text.split())) for line, text in sorted(texts) if len(text.split()) > 2]
