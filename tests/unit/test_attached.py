"""From a Celery app, or the name of its module, to its flows: also those that Celery imports only when it must."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from celery import Celery, current_app

from runclaim import Runclaim
from runclaim.attached import find
from runclaim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
from celery import Celery
from runclaim import Runclaim

app = Celery("found", broker="memory://", set_as_current=False, {include})
runs = Runclaim(app, database_url="sqlite:///found.db")
{discover}
"""
FLOW = """
from dataclasses import dataclass
from {package}.app import runs

@dataclass
class Order:
    number: int

order = runs.flow("order", Order, key="{{number}}")

@order.phase
def one(ctx):
    pass
"""
WAYS = {
    "include": ('include=["{}.orders.tasks"]', ""),
    "autodiscover": ("", 'app.autodiscover_tasks(["{}.orders"])'),
    "imports": ("", 'app.conf.imports = ["{}.orders.tasks"]'),
}


@pytest.fixture(params=WAYS)
def package(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The layout of every Django project: flows in modules that the application's module does not import."""
    name = f"project_{request.param}"
    include, discover = (each.format(name) for each in WAYS[request.param])
    (tmp_path / name / "orders").mkdir(parents=True)
    (tmp_path / name / "app.py").write_text(APP.format(include=include, discover=discover))
    (tmp_path / name / "orders" / "tasks.py").write_text(FLOW.format(package=name))
    for folder in (name, f"{name}/orders"):
        (tmp_path / folder / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [each for each in sys.modules if each.startswith(name)]:
        del sys.modules[module]


def test_flows_in_modules_that_celery_imports_late_are_seen(package: str):
    """
    INVARIANT: every command sees the flows that a worker of the same application has.

    Breaks if only the module that -A names is imported.
    """
    assert ["order"] == list(find(f"{package}.app").flows)


def test_they_are_seen_from_an_application_that_celery_has_loaded(package: str):
    """As `celery -A app runclaim …` has it."""
    app: Celery = __import__(f"{package}.app", fromlist=["app"]).app

    assert ["order"] == list(find(app).flows)


def test_a_module_of_tasks_that_cannot_be_imported_is_named(package: str, tmp_path: Path):
    (tmp_path / package / "orders" / "tasks.py").write_text("import nothing_of_that_name")

    with pytest.raises(ConfigError, match=f"tasks of the application {package}.app .*nothing_of_that_name"):
        find(f"{package}.app")


def test_the_application_may_be_given_by_celerys_proxy(sqlite_url: str):
    app = Celery("current", broker="memory://")
    app.set_current()
    runs = Runclaim(current_app, database_url=sqlite_url)

    assert runs.app is app
    assert find(app) is runs
    runs.close()
    app.close()
