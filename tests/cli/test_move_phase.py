"""`runclaim runs move-phase`, on the ledger itself and through the API."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Line

MOVE = ("runs", "move-phase", "--flow", "review", "--from", "deliver", "--to", "publish")


@pytest.fixture
def line(line: Line) -> Line:
    """The new release is registered: its second phase is `publish`, in a queue of its own."""
    newer = line.bench.flow("review")
    newer.phase(name="plan")(lambda ctx: "planned")
    newer.phase(name="publish", queue="press")(lambda ctx: "published")
    line.bench.register(newer)
    return line


def test_live_runs_are_counted_asked_for_moved_and_end_in_the_new_release(line: Line):
    runs = [line.review.enqueue(repo="a", number=number) for number in range(3)]
    ended = line.review.enqueue(repo="a", number=7)
    ended.cancel()
    asked = line(*MOVE)
    done = line(*MOVE, "--yes")
    again = line(*MOVE, "--yes")
    for run in runs:
        line.bench.finish(line.bench.flows["review"], run)

    assert (2, True) == (asked.exit_code, "there is no terminal to ask on; give --yes" in asked.stderr)
    assert (0, [f"{run.id}\tqueued" for run in runs]) == (done.exit_code, done.stdout.splitlines())
    assert "moved phase deliver to publish in 3 runs\n" in done.stderr
    assert (3, True) == (again.exit_code, "no live run of flow review has phase deliver before it" in again.stderr)
    assert ["succeeded"] * 3 == [run.state for run in runs]
    assert ["plan", "publish"] == list(runs[0].phases)
    assert [("deliver", "publish")] == [
        (each.data["from"], each.data["to"]) for each in runs[0].events if each.type == "run.phase_moved"
    ]


def test_many_runs_are_moved_call_by_call(line: Line):
    line.review.enqueue_many([{"repo": "a", "number": number} for number in range(230)])
    done = line(*MOVE, "--yes", "--json")
    told = json.loads(done.stdout)

    assert (0, 230, 0) == (done.exit_code, len({run["id"] for run in told["runs"]}), told["movable"])
    assert "100 runs so far\n200 runs so far\n" in done.stderr


def test_a_running_run_is_left_alone_and_is_said(line: Line):
    run = line.review.enqueue(repo="a", number=7)
    line.bench.execute(
        "UPDATE runclaim_runs SET state = 'running', fence = 1, owner = 'x', lease_expires_at = available_at,"
        " deadline_at = available_at"
    )
    told = line(*MOVE, "--yes")

    assert (1, "") == (told.exit_code, told.stdout)
    assert "1 run is running; repeat the command when they have ended the phase they are in\n" in told.stderr
    assert "deliver" in run.phases


def test_only_the_runs_that_are_named_are_moved(line: Line):
    first, second, third = (line.review.enqueue(repo="a", number=number) for number in range(3))
    by_id = line(*MOVE, "--yes", first.id)
    by_key = line(*MOVE, "--yes", "--key", second.view.key)

    assert [f"{first.id}\tqueued\n", f"{second.id}\tqueued\n"] == [by_id.stdout, by_key.stdout]
    assert "deliver" in third.phases


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ("--flow", "review", "--from", "deliver", "--to", "ship"),
            "ship is not a phase of flow review: plan, publish",
        ),
        (("--flow", "review", "--from", "plan", "--to", "plan"), "is the phase itself, plan"),
    ],
)
def test_what_is_no_phase_is_refused_and_nothing_is_moved(line: Line, words: tuple[str, ...], said: str):
    run = line.review.enqueue(repo="a", number=7)
    told = line("runs", "move-phase", "--flow", "review", *words, "--yes")

    assert (4, True) == (told.exit_code, said in told.stderr), told.stderr
    assert ["plan", "deliver"] == list(run.phases)


def test_a_flow_that_is_not_registered_is_not_found(line: Line):
    told = line("runs", "move-phase", "--flow", "nothing", "--from", "a", "--to", "b", "--yes")

    assert (3, "") == (told.exit_code, told.stdout)
    assert "flow nothing is not registered" in told.stderr


def test_the_status_of_a_run_at_a_phase_that_is_gone_says_so_until_it_is_moved(line: Line):
    run = line.review.enqueue(repo="a", number=7)
    fits = line("runs", "status", run.id)
    newer = line.bench.flow("review")
    newer.phase(name="start")(lambda ctx: "started")
    line.bench.register(newer)
    line.bench.execute("DELETE FROM runclaim_releases WHERE CAST(declared AS TEXT) NOT LIKE '%start%'")
    gone = line("runs", "status", run.id)
    line("runs", "move-phase", "--flow", "review", "--from", "plan", "--to", "start", "--yes")
    after = line("runs", "status", run.id, "--json")

    said = "gone\tno release that is alive declares phase plan; runclaim deploy check says what to do\n"
    assert (False, True, False) == (said in fits.stdout, said in gone.stdout, json.loads(after.stdout)["phase_is_gone"])
