"""What users can see of the package, read from its source: the stable places, and the signatures they lead to."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where users import from; what is elsewhere in the package moves from release to release.
STABLE = (
    "runclaim",
    "runclaim.errors",
    "runclaim.types",
    "runclaim.testing",
    "runclaim.alembic",
    "runclaim.metrics",
    "runclaim.logs",
)
#: Of these only what configurations name.
_ONLY = {"runclaim.metrics": {"LedgerCollector"}, "runclaim.logs": {"JsonFormatter"}}
_RAISES = re.compile(r"Raises:(.*?)(?:\n\s*\n|\Z)", re.DOTALL)
_ERROR = re.compile(r"\b[A-Z]\w*[a-z]\w*\b")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Place(NamedTuple):
    """Where a name is defined."""

    module: str
    name: str


@dataclass
class Source:
    """One module: what it imports, types included, and what it defines."""

    name: str
    tree: ast.Module
    imports: dict[str, Place] = field(default_factory=dict)
    defined: dict[str, ast.stmt] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                self.imports |= {each.asname or each.name: Place(node.module, each.name) for each in node.names}
        blocks = [each for each in self.tree.body if isinstance(each, ast.If)]
        for node in [*self.tree.body, *(each for block in blocks for each in block.body)]:
            if isinstance(node, ast.ClassDef | _Function):
                self.defined[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                self.defined |= {each.id: node for each in targets if isinstance(each, ast.Name)}


@cache
def source(module: str) -> Source | None:
    """The module as its file has it; `None` for a name that is no module of the package."""
    found = find_spec(module) if module.split(".", maxsplit=1)[0] == "runclaim" else None
    return None if found is None or found.origin is None else Source(module, ast.parse(Path(found.origin).read_text()))


def home(module: str, name: str) -> Place | None:
    """Where the package defines what `name` means in a module; `None` for what is not the package's."""
    while (found := source(module)) is not None:
        if name in found.defined:
            return Place(module, name)
        if name not in found.imports:
            return None
        module, name = found.imports[name]
    return None


def offered(module: str) -> set[str]:
    """The names that a stable module offers: its `__all__`, else what it defines, and what it imports as itself."""
    if module in _ONLY:
        return _ONLY[module]
    here = _source(module)
    if "__all__" in here.defined:
        return set(ast.literal_eval(here.defined["__all__"].value))  # type: ignore[attr-defined]
    kept = {
        each.name
        for node in here.tree.body
        if isinstance(node, ast.ImportFrom)
        for each in node.names
        if each.asname == each.name
    }
    made = {name for name, node in here.defined.items() if isinstance(node, ast.ClassDef | _Function)}
    return {name for name in made | kept if not name.startswith("_")}


def stable_names() -> dict[Place, str]:
    """What can be imported from a stable place: where it is defined, and from where it is imported."""
    return {place: f"{module}.{name}" for module in STABLE for name in offered(module) if (place := home(module, name))}


@dataclass(frozen=True)
class Seen:
    """One class of the package that a user meets, and in which signature."""

    where: str
    place: Place


def seen_from(places: Iterator[Place] | list[Place]) -> Iterator[Seen]:
    """Every class that the signatures of these names lead to: parameters, results, fields, and errors they name."""
    for place in places:
        here = _source(place.module)
        node = here.defined[place.name]
        if isinstance(node, ast.ClassDef):
            yield from _seen_in_class(here, node, place.name)
        elif isinstance(node, _Function):
            yield from _seen_in_function(here, node, place.name)


def _seen_in_class(here: Source, node: ast.ClassDef, label: str) -> Iterator[Seen]:
    for base in node.bases:
        for name in _names(base):
            if (parent := home(here.name, name)) and isinstance(
                its := _source(parent.module).defined[parent.name], ast.ClassDef
            ):
                yield from _seen_in_class(_source(parent.module), its, label)
    is_made_by_users = bool(node.decorator_list) or any("Error" in ast.unparse(each) for each in node.bases)
    for member in node.body:
        if isinstance(member, ast.AnnAssign) and not ast.unparse(member.target).startswith("_"):
            yield from _seen_in(here, member.annotation, f"{label}.{ast.unparse(member.target)}")
        is_called = isinstance(member, _Function) and (
            not member.name.startswith("_") or (member.name == "__init__" and is_made_by_users)
        )
        if isinstance(member, _Function) and is_called:
            yield from _seen_in_function(here, member, f"{label}.{member.name}")


def _seen_in_function(here: Source, node: _Function, label: str) -> Iterator[Seen]:
    arguments = node.args
    for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        yield from _seen_in(here, each.annotation, f"{label}({each.arg})")
    yield from _seen_in(here, node.returns, f"{label}() →")
    for raised in _RAISES.findall(ast.get_docstring(node) or ""):
        for name in _ERROR.findall(raised):
            if place := home("runclaim.errors", name) or home(here.name, name):
                yield Seen(f"{label} raises", place)


def _seen_in(here: Source, annotation: ast.expr | None, where: str) -> Iterator[Seen]:
    for name in _names(annotation) if annotation is not None else ():
        place = home(here.name, name)
        if place is None:
            continue
        node = _source(place.module).defined[place.name]
        if isinstance(node, ast.ClassDef):
            if not any("Protocol" in ast.unparse(each) for each in node.bases):
                yield Seen(where, place)
        elif (
            isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value is not None
            and not _is_type_variable(node.value)
        ):
            yield from _seen_in(_source(place.module), node.value, where)


def _names(node: ast.expr) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
            yield each.value


def _is_type_variable(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Call) and "TypeVar" in ast.unparse(value.func)


def _source(module: str) -> Source:
    found = source(module)
    assert found is not None, f"there is no module {module}"
    return found
