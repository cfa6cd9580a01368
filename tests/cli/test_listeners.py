"""`runclaim listeners`: who is told of events, how far each is, and what was given up, told again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from runclaim.errors import GiveUp
from runclaim.listeners.listener import Event, Listener

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Line


class Pager:
    """A receiver of `run.enqueued` that gives up what it is told, until it is `mended`."""

    def __init__(self, line: Line, name: str = "pager") -> None:
        self.mended, self.heard, self._line = False, [], line
        line.bench.ledger.listeners.add(
            Listener(name=name, types=("run.enqueued",), flows=None, tell=self.receive, schedule=())
        )
        line.bench.tell()

    def receive(self, event: Event) -> None:
        if not self.mended:
            raise GiveUp("nobody is on call")
        self.heard.append(event.run_id)

    def gives_up(self, *numbers: int) -> list[str]:
        """Runs whose first event it gave up."""
        made = [self._line.review.enqueue(repo="acme/app", number=number).id for number in numbers]
        self._line.bench.tell()
        return made


def listed(line: Line) -> dict[str, dict[str, int]]:
    found = map(json.loads, line("listeners", "list", "--json").stdout.splitlines())
    return {each.pop("name"): each for each in found}


def test_every_listener_is_listed_with_how_far_it_is_and_what_was_given_up(local: Line):
    pager = Pager(local)
    pager.gives_up(1, 2)
    local.review.enqueue(repo="acme/app", number=3)
    rows = local("listeners", "list").stdout.splitlines()

    assert {"behind": 1, "untold": 0, "given_up": 2} == listed(local)["pager"]
    assert ["pager\t1\t0\t2", "runclaim.totals\t1\t0\t0"] == rows


def test_what_a_listener_did_not_take_and_is_told_again_is_not_given_up(local: Line):
    first, _ = Pager(local).gives_up(1, 2)
    local.bench.execute("UPDATE runclaim_untold SET state = 'waiting' WHERE run_id = :id", id=first)

    assert {"behind": 0, "untold": 1, "given_up": 1} == listed(local)["pager"]


def test_a_ledger_that_nobody_listens_to_says_so(local: Line):
    told = local("listeners", "list")

    assert (0, "", "no listeners\n") == (told.exit_code, told.stdout, told.stderr)


def test_what_was_given_up_is_told_again_once_and_to_its_listener_only(local: Line):
    pager, other = Pager(local), Pager(local, "other")
    runs = pager.gives_up(1, 2)
    pager.mended = other.mended = True
    local.bench.tell()
    before = list(pager.heard)
    told = local("listeners", "retry", "pager")
    local.bench.tell()
    again = local("listeners", "retry", "pager", "--json")

    assert [] == before
    assert (0, "pager\t2\n") == (told.exit_code, told.stdout)
    assert "2 events will be told again; beat checks every 5 s" in told.stderr
    assert (runs, []) == (pager.heard, other.heard)
    assert (0, {"name": "pager", "told_again": 0}) == (again.exit_code, json.loads(again.stdout))
    assert "no events were given up for pager" in again.stderr
    assert {"pager": 0, "other": 2, "runclaim.totals": 0} == {
        name: each["given_up"] for name, each in listed(local).items()
    }


def test_what_is_told_again_begins_its_schedule_anew_and_may_be_given_up_again(local: Line):
    Pager(local).gives_up(1)
    for _ in range(2):
        told = local("listeners", "retry", "pager")
        due = local.bench.execute("SELECT state, attempts FROM runclaim_untold").one()
        local.bench.tell()
        after = local.bench.execute("SELECT state, attempts FROM runclaim_untold").one()

        assert "1 event will be told again" in told.stderr
        assert (("waiting", 0), ("given_up", 1)) == (tuple(due), tuple(after))


def test_a_listener_that_is_not_there_is_not_found(local: Line):
    told = local("listeners", "retry", "pgaer")

    assert (3, "") == (told.exit_code, told.stdout)
    assert "there is no listener pgaer; list them with: runclaim listeners list" in told.stderr


@pytest.mark.parametrize("words", [["list"], ["retry", "pager"]])
def test_a_ledger_that_is_not_there_is_told_and_not_made(local: Line, words: list[str], tmp_path: Path):
    missing = tmp_path / "new.db"
    told = local("listeners", *words, "--url", f"sqlite:///{missing}")

    assert (6, "") == (told.exit_code, told.stdout)
    assert not missing.exists()
