"""A flow that does not fail open meets nothing of those that do: not when it is enqueued, not when it is delivered."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from runclaim import Context, Runclaim, RunState, migrations
from runclaim.database import Database
from runclaim.errors import LedgerUnavailable
from runclaim.flows import fail_open as room
from tests.harness.bench import NO_WAIT, PullRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

APPLICATION = """
import sys
from dataclasses import dataclass
from datetime import timedelta

from celery import Celery
from runclaim import Runclaim, migrations
from runclaim.database import Database

database = Database({url!r}, patience=timedelta(seconds=20))
migrations.upgrade(database)
database.close()
app = Celery("ordinary", broker="memory://", set_as_current=False)
app.conf.task_always_eager = True
runs = Runclaim(app, database_url={url!r})

@dataclass(frozen=True)
class PullRequest:
    number: int

review = runs.flow("review", PullRequest, key="{{number}}", fail_open={fail_open})

@review.phase(idempotent=True)
def plan(ctx) -> int:
    return ctx.input.number

run = review.enqueue(number=7)
assert run.state == "succeeded", run.view
runs.close()
print(*sorted(name for name in sys.modules if name.startswith("runclaim.flows.fail_open")))
"""


def loaded(url: str, *, fail_open: bool) -> list[str]:
    """What a process has imported of the fail-open room that enqueues and runs a flow."""
    source = APPLICATION.format(url=url, fail_open=fail_open)
    return subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, text=True).stdout.split()


def test_a_process_without_such_a_flow_imports_nothing_of_them(sqlite_url: str):
    """
    INVARIANT: what only some flows do is on nobody else's way.

    Breaks if what every application imports imports the fail-open room.
    """
    assert [] == loaded(sqlite_url, fail_open=False)


def test_a_process_with_such_a_flow_has_imported_all_of_it_before_the_ledger_goes_away(sqlite_url: str):
    modules = {each.name for each in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")}

    assert {room.__name__, *modules} == set(loaded(sqlite_url, fail_open=True))


class Both:
    """An application with a flow of each kind, whose bodies run where they are enqueued."""

    def __init__(self, url: str) -> None:
        self.app = Celery("both", broker="memory://", set_as_current=False)
        self.app.conf.task_always_eager = True
        self.runs = Runclaim(self.app, database_url=url, ledger_patience="50ms")
        self.flows = {
            fail_open: self.runs.flow(f"flow-{fail_open}", PullRequest, key="{repo}:{number}", fail_open=fail_open)
            for fail_open in (False, True)
        }
        for flow in self.flows.values():
            flow.phase(name="plan", idempotent=True)(self._plan)

    def _plan(self, ctx: Context[PullRequest]) -> str:
        return ctx.key


@pytest.fixture
def both(sqlite_url: str, tmp_path: Path) -> Iterator[Both]:
    database = Database(sqlite_url, patience=NO_WAIT)
    migrations.upgrade(database)
    database.close()
    made = Both(sqlite_url)
    yield made
    made.runs.close()
    made.app.close()


def entered(work: Callable[[], object]) -> set[str]:
    """The functions of the fail-open room that are called meanwhile, by this thread."""
    calls = set()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("runclaim.flows.fail_open"):
            calls.add(f"{module}.{frame.f_code.co_name}")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def test_beside_such_a_flow_an_ordinary_one_enters_none_of_their_functions(both: Both):
    """
    INVARIANT: an enqueue, a delivery and a retry of a flow that fails closed call nothing of the fail-open room.

    Breaks if everything that is delivered goes by the deliverer of flows that fail open.
    """
    runs = []

    def work(fail_open: bool) -> None:
        runs.append(both.flows[fail_open].enqueue(repo="acme/app", number=7))

    assert set() == entered(lambda: work(False))
    assert "runclaim.flows.fail_open.deliverer.deliver" in entered(lambda: work(True))
    assert [RunState.SUCCEEDED] * 2 == [run.state for run in runs]


def test_an_ordinary_enqueue_fails_without_the_ledger_and_asks_nobody_else(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    both = Both(f"sqlite:///{disk / 'ledger.db'}")
    both.flows[False].enqueue(repo="acme/app", number=7)
    both.runs.ledger.database.close()
    disk.rename(tmp_path / "elsewhere")

    def work() -> None:
        with pytest.raises(LedgerUnavailable):
            both.flows[False].enqueue(repo="acme/app", number=8)

    assert set() == entered(work)
