"""A name that is declared twice: the error says where the first is, or that one file was imported as two modules."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from runclaim import Runclaim
from runclaim.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

APP = """
from celery import Celery
from runclaim import Runclaim
runs = Runclaim(Celery("twice", broker="memory://", set_as_current=False))
"""
#: What is declared, and the line.
DECLARED = {
    "flow": 'runs.flow("order", Order, key="{number}")',
    "action": 'runs.action("order")(lambda payload, key: "id")',
    "secret resolver": 'runs.secret_resolver("order")(lambda rest: "value")',
}
TASKS = """
from dataclasses import dataclass
from twice_app import runs

@dataclass
class Order:
    number: int

"""


@pytest.fixture(params=DECLARED)
def what(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A file of declarations that may be imported as `twice_tasks` and as `twice.twice_tasks`."""
    (tmp_path / "twice_app.py").write_text(APP)
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "__init__.py").touch()
    (tmp_path / "twice" / "twice_tasks.py").write_text(TASKS + DECLARED[request.param])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "twice")
    yield request.param
    for module in ("twice_app", "twice_tasks", "twice", "twice.twice_tasks"):
        sys.modules.pop(module, None)


def refused(again: Callable[[], object]) -> str:
    with pytest.raises(DeclarationError) as error:
        again()
    return str(error.value)


def test_a_file_that_is_imported_under_two_names_is_told_with_both(what: str, tmp_path: Path):
    importlib.import_module("twice_tasks")
    said = refused(lambda: importlib.import_module("twice.twice_tasks"))

    assert (
        f"the {what} order ({tmp_path}/twice/twice_tasks.py:9) is declared twice, as its file is imported under two"
        " names, twice_tasks and twice.twice_tasks: import it under one"
    ) == said


def test_a_module_that_is_reloaded_is_told_as_that(what: str, tmp_path: Path):
    module = importlib.import_module("twice_tasks")
    said = refused(lambda: importlib.reload(module))

    assert (
        f"the {what} order ({tmp_path}/twice/twice_tasks.py:9) is declared again because its module twice_tasks"
        " runs a second time; restart the process instead of reloading the module"
    ) == said


def test_two_declarations_of_one_name_are_told_with_the_place_of_the_first():
    runs = Runclaim(Celery("twice", broker="memory://", set_as_current=False))
    runs.action("mail")(str)
    line = sys._getframe().f_lineno - 1
    said = refused(lambda: runs.action("mail")(str))

    assert (
        f"this app already has an action mail, declared in {__name__} ({__file__}:{line}); give the second another name"
    ) == said
