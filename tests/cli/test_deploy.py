"""`runclaim deploy check`, as CI runs it: with the module of the new release, on the ledger that is in use."""

from __future__ import annotations

import importlib
import json
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import Line

RELEASE = """
from dataclasses import dataclass
from celery import Celery
from runclaim import Runclaim

app = Celery("shop", broker="redis://127.0.0.1:1/0", set_as_current=False)
runs = Runclaim(app, database_url={url!r})

@dataclass(frozen=True)
class Order:
    number: {kind}

order = runs.flow("order", Order, key="{{number}}")

@order.phase
def plan(ctx):
    return 1

@order.phase
def {last}(ctx):
    return 2
"""


def tables_of(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as conn:
        return [name for (name,) in conn.execute("SELECT name FROM sqlite_master")]


class Shop:
    """An application in two releases: `shop_old` is running, `shop_new` is about to be."""

    def __init__(self, line: Line, folder: Path) -> None:
        self.line, self.folder = line, folder

    def write(self, release: str, *, kind: str = "str", last: str = "deliver") -> None:
        url = self.line.bench.config.database_url
        (self.folder / f"{release}.py").write_text(RELEASE.format(url=url, kind=kind, last=last))
        importlib.invalidate_caches()

    def enqueue(self, *numbers: str) -> None:
        old: Any = importlib.import_module("shop_old")
        old.order.enqueue_many([old.Order(number) for number in numbers])
        old.runs.ledger.close()

    def check(self, *words: str) -> Result:
        return self.line("deploy", "check", "-A", "shop_new", *words, RUNCLAIM_DATABASE_URL=None)


@pytest.fixture
def shop(local: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.syspath_prepend(tmp_path)
    made = Shop(local, tmp_path)
    made.write("shop_old")
    yield made
    for name in ("shop_old", "shop_new"):
        if (module := sys.modules.pop(name, None)) is not None:
            module.runs.ledger.close()


def test_a_release_that_can_do_everything_fits(shop: Shop):
    shop.write("shop_new")
    shop.enqueue("a", "b")
    told = shop.check()

    assert (0, "") == (told.exit_code, told.stdout)
    assert "this release fits: 2 live runs in project default\n" == told.stderr


def test_what_does_not_fit_is_told_with_what_to_do_in_lines_of_80_columns(shop: Shop):
    shop.write("shop_new", kind="int", last="publish")
    shop.enqueue("a", "b")
    told = shop.check()

    assert 1 == told.exit_code
    assert (
        "flow order: this release does not declare phase deliver; 2 live runs, 2 of them\n"
        "  due within an hour, pinned to it\n"
        '    to keep the old name: @order.phase(name="deliver")\n'
        "    or: runclaim runs move-phase --flow order --from deliver --to publish\n"
        "flow order: 2 live runs have an input that its type no longer takes: field\n"
        "  number\n"
        "    accept what was recorded: give a new field a default, keep a wider type\n"
    ) == told.stdout.partition("    run 0")[0]
    assert 80 >= max(map(len, told.stdout.splitlines()))
    assert "2 things do not fit: 2 live runs in project default\n" == told.stderr


def test_a_program_reads_one_object(shop: Shop):
    shop.write("shop_new", last="publish")
    shop.enqueue("a")
    told = shop.check("--json", "--at-most", "0")
    found = json.loads(told.stdout)
    (misfit,) = found.pop("misfits")

    assert 1 == told.exit_code
    assert {"fits": False, "project": "default", "live_runs": 1, "inputs": 1, "inputs_checked": 0} == found
    assert [
        "kind",
        "flow",
        "name",
        "count",
        "due_within_an_hour",
        "earliest",
        "run_ids",
        "problem",
        "remedies",
    ] == list(misfit), "programs rely on these"
    assert ("phase", "order", "deliver", 1, 1) == tuple(misfit.values())[:5]
    assert "checked the inputs of 0 live runs out of 1; raise --at-most for more" in told.stderr


def test_other_applications_flows_are_left_out_by_name(shop: Shop):
    shop.write("shop_new")
    shop.line.bench.ledger.flows["review"].enqueue(repo="a", number=7)

    assert 1 == (told := shop.check()).exit_code
    assert "or, if another application has it: --except-flow review\n" in told.stdout
    assert 0 == shop.check("--except-flow", "review").exit_code


def test_the_new_release_has_to_be_named(local: Line):
    told = local("deploy", "check")

    assert 2 == told.exit_code
    assert "name the new release's application with -A MODULE" in told.stderr


def test_a_ledger_that_is_not_there_is_unreachable_and_is_not_made(shop: Shop, tmp_path: Path):
    """INVARIANT: the check makes no ledger. Breaks if it reaches the ledger as a worker does, which makes one."""
    missing = tmp_path / "new.db"
    (tmp_path / "shop_new.py").write_text(RELEASE.format(url=f"sqlite:///{missing}", kind="str", last="deliver"))
    importlib.invalidate_caches()
    assert 6 == shop.check().exit_code
    assert not missing.exists()
    missing.touch()
    told = shop.check()

    assert (1, []) == (told.exit_code, tables_of(missing))
    assert "runclaim db upgrade" in told.stderr
