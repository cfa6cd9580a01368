"""What users import comes from a few places that stay, and so does every type that these lead to."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.public_face import STABLE, offered, seen_from, stable_names

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
PROGRAMS = sorted([*ROOT.glob("examples/**/*.py"), *ROOT.glob("deploy/**/*.py")])
#: The demo's stage starts servers and looks behind the curtain, as tests do: no example of how to write an application.
BACKSTAGE = {
    "examples/review/demo.py": {"runclaim.models", "runclaim.states"},
    "examples/review/trial/faults.py": {"runclaim.servers"},
    "examples/review/trial/report.py": {"runclaim.ledger"},
    "examples/review/trial/stage.py": {
        "runclaim.config",
        "runclaim.database",
        "runclaim.migrations",
        "runclaim.servers",
        "runclaim.servers.machine",
    },
}
#: Without an underscore for the package's own rooms; no user calls them. Of the access to the ledger the documents name
#: `runs.ledger.database` alone.
OF_THE_HOUSE = {
    "Enqueuer.new_run",
    "Flow.described",
    "Flow.key_of",
    "Phase.described",
    "Runclaim.ledger",
}
_IMPORT = re.compile(r"^\s*(?:from (runclaim[\w.]*) import (\([^)]*\)|[^\n#]+)|import (runclaim[\w.]*))", re.MULTILINE)


def imports(path: Path) -> set[tuple[str, str]]:
    """What a page or a program imports from the package: module and name."""
    found = set()
    for module, names, whole in _IMPORT.findall(path.read_text()):
        for name in (each.strip() for each in names.strip("()").split(",")) if names else ("",):
            # Of the package itself a module is imported as a name is.
            is_module = module == "runclaim" and name not in offered("runclaim")
            found.add((f"runclaim.{name}", "") if is_module else (module or whole, name.split(" ")[0]))
    return found


def member(where: str) -> str:
    """The function or field of a signature, without the argument."""
    return where.split("(", maxsplit=1)[0]


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*PAGES, *PROGRAMS], ids=label)
def test_documents_and_examples_import_from_stable_places_only(path: Path):
    """
    INVARIANT: what the documents show can be imported in every release.

    Breaks if a page or an example imports from a room of the package, whose modules move.
    """
    backstage = BACKSTAGE.get(label(path), set())
    modules = {module for module, name in imports(path)} - backstage

    assert set() == modules - set(STABLE)
    assert backstage <= {module for module, _name in imports(path)}, "a place is listed that is no longer imported"


@pytest.mark.parametrize("path", [*PAGES, *PROGRAMS], ids=label)
def test_what_documents_and_examples_import_exists(path: Path):
    missing = [(module, name) for module, name in imports(path) if name and not hasattr(import_module(module), name)]

    assert [] == missing


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_a_dotted_name_in_a_page_is_one_that_exists(page: Path):
    """Names in prose too: `runclaim.metrics.LedgerCollector` is imported by whoever reads it."""
    named = set(re.findall(r"`(runclaim(?:\.\w+)+)\.([A-Z]\w+)", page.read_text()))

    assert [] == [(module, name) for module, name in named if module not in STABLE or name not in offered(module)]


def test_every_type_that_a_public_signature_names_can_be_imported():
    """
    INVARIANT: a user can annotate what they give and are given, and catch what a docstring says is raised.

    Breaks if a public function takes, returns or raises a class of the package that no stable place offers.
    """
    stable = stable_names()
    hidden = {
        f"{seen.where}: {seen.place.module}.{seen.place.name}"
        for seen in seen_from(list(stable))
        if seen.place not in stable and member(seen.where) not in OF_THE_HOUSE
    }

    assert set() == hidden


def test_what_is_of_the_house_is_still_there():
    stable = stable_names()
    hidden = {member(seen.where) for seen in seen_from(list(stable)) if seen.place not in stable}

    assert OF_THE_HOUSE == hidden


@pytest.mark.parametrize("module", STABLE)
def test_every_name_that_is_offered_can_be_imported(module: str):
    assert [] == [name for name in offered(module) if not hasattr(import_module(module), name)]


def test_a_name_is_offered_in_one_place():
    """But an outcome or an error that `runclaim` has, because every flow needs it, stands among all the others too."""
    places: dict[str, list[str]] = {}
    for module in STABLE:
        for name in offered(module):
            places.setdefault(name, []).append(module)

    assert {} == {
        name: found for name, found in places.items() if len(found) > 1 and found != ["runclaim", "runclaim.errors"]
    }


@pytest.mark.parametrize(
    "module, unwanted",
    [
        ("runclaim", ["celery", "sqlalchemy", "msgspec", "alembic", "click"]),
        ("runclaim.errors", ["celery", "sqlalchemy", "msgspec", "alembic", "click"]),
        ("runclaim.types", ["celery", "kombu", "psycopg", "fastapi", "alembic"]),
    ],
)
def test_a_stable_place_imports_no_more_than_it_needs(module: str, unwanted: list[str]):
    """
    INVARIANT: `import runclaim` costs nothing, and its errors are caught without Celery.

    Breaks if a name is imported before it is used.
    """
    script = f"import sys, {module}; print(*sorted({unwanted} & sys.modules.keys()))".replace(
        str(unwanted), repr(set(unwanted))
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "" == done.stdout.strip()


def test_the_page_of_names_has_every_name_that_is_offered_and_no_other():
    text = (ROOT / "docs/names.md").read_text()
    sections = re.findall(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    listed = {
        place: {
            name for row in re.findall(r"^\| (`.+?) \|", body, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
        }
        for place, body in sections
    }

    assert {module: offered(module) for module in STABLE} == listed
