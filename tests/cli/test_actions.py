"""`runclaim actions`, here and through the API: what a person sees of planned actions, and decides of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import ActionRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Line


@pytest.fixture
def planned(line: Line) -> Callable[[Exception | None], dict[str, Any]]:
    """Plan a comment, have it sent, and return the action as JSON; sending raises the error, if one is given."""
    bench, trouble = line.bench, []

    @bench.action("comment", max_attempts=1)
    def send(payload: Any, idempotency_key: str) -> str:
        if trouble:
            raise trouble[0]
        return f"upstream-{payload['number']}"

    flow = bench.flow("notes", key="{number}")
    flow.phase(name="write")(lambda ctx: ctx.plan_action("comment", {"number": ctx.input.number}))

    def plan(error: Exception | None = None) -> dict[str, Any]:
        trouble[:] = [] if error is None else [error]
        run = flow.enqueue(repo="a", number=7)
        bench.finish(flow, run)
        bench.send()
        trouble.clear()
        return json.loads(line("actions", "list", "--run", run.id, "--json").stdout)

    return plan


def test_actions_are_listed_with_what_became_of_them(line: Line, planned: Callable[..., dict[str, Any]]):
    action = planned()
    row = line("actions", "list").stdout.rstrip("\n").split("\t")
    failed = line("actions", "list", "--state", "failed")

    assert ("posted", "upstream-7", {"number": 7}) == (action["state"], action["upstream_id"], action["payload"])
    assert f"{action['run_id']}:write:0" == action["idempotency_key"]
    assert [action["id"], "posted", "comment", action["run_id"], "write", "1", "upstream-7"] == row
    assert (0, "", "no actions\n") == (failed.exit_code, failed.stdout, failed.stderr)


def test_a_failed_action_is_sent_again_without_a_question(line: Line, planned: Callable[..., dict[str, Any]]):
    action = planned(ActionRejected("closed"))
    told = line("actions", "retry", action["id"])
    line.bench.send()
    again = line("actions", "retry", action["id"])

    assert ("failed", "closed") == (action["state"], action["error"]["message"])
    assert (0, f"{action['id']}\tplanned\n") == (told.exit_code, told.stdout)
    assert f"will be sent {'soon' if line.is_remote else 'when beat schedules it, within 5 s'}" in told.stderr
    assert 4 == again.exit_code
    assert f"cannot retry action {action['id']}: it is posted (only a failed or unknown one can be)" in again.stderr


def test_an_unknown_action_is_sent_again_only_by_somebody_who_means_it(
    line: Line, planned: Callable[..., dict[str, Any]]
):
    action = planned(ConnectionError("cut"))
    asked = line("actions", "retry", action["id"])
    told = line("actions", "retry", action["id"], "--yes", "--json")

    assert "unknown" == action["state"]
    assert (2, "") == (asked.exit_code, asked.stdout)
    assert (0, "planned") == (told.exit_code, json.loads(told.stdout)["state"])


@pytest.mark.parametrize(
    "words, state, upstream", [(["--posted", "note-9"], "posted", "note-9"), (["--never"], "failed", None)]
)
def test_an_unknown_action_is_resolved_once(
    line: Line, planned: Callable[..., dict[str, Any]], words: list[str], state: str, upstream: str | None
):
    action = planned(ConnectionError("cut"))
    unsaid = line("actions", "resolve", action["id"])
    told = line("actions", "resolve", action["id"], *words, "--json")
    twice = line("actions", "resolve", action["id"], "--never")
    line.bench.send()
    after = json.loads(line("actions", "list", "--json").stdout)

    assert 2 == unsaid.exit_code
    assert "give either --posted UPSTREAM_ID or --never" in unsaid.stderr
    assert (0, state, upstream) == (told.exit_code, (found := json.loads(told.stdout))["state"], found["upstream_id"])
    assert 4 == twice.exit_code
    assert f"it is {state} (only an unknown one can be)" in twice.stderr
    assert (state, upstream) == (after["state"], after["upstream_id"])


def test_the_api_shows_the_same_actions_in_the_same_order(line: Line):
    """Those of a run in their order, all others the newest first, whatever a page of the API holds."""
    bench = line.bench
    bench.action("comment")(lambda payload, idempotency_key: "sent")
    flow = bench.flow("notes", key="{number}")
    flow.phase(name="write")(lambda ctx: [ctx.plan_action("comment", {"number": each}) for each in range(102)] and None)
    run, other = (flow.enqueue(repo="a", number=number) for number in (7, 8))
    bench.finish(flow, run)
    bench.finish(flow, other)
    asked = [
        ("--run", run.id, "--limit", "3"),
        ("--run", run.id, "--limit", "200", "--state", "planned"),
        ("--limit", "203"),
        ("--project", "other"),
        ("--run", run.id, "--project", "other"),
    ]
    told = [line("actions", "list", *words, "--json").stdout for words in asked]
    payloads = [json.loads(each)["payload"]["number"] for each in told[0].splitlines()]

    assert [line.local("actions", "list", *words, "--json").stdout for words in asked] == told
    assert [3, 102, 203, 0, 0] == [len(each.splitlines()) for each in told]
    assert [0, 1, 2] == payloads


@pytest.mark.parametrize("words", [["list", "--run"], ["retry"], ["resolve", "--never"]])
def test_what_is_not_there_is_not_found(line: Line, words: list[str]):
    told = line("actions", *words, "01a1ff2d-bb47-71c7-ae3a-fff5e236b971")

    assert (3, "") == (told.exit_code, told.stdout)
    assert "no " in told.stderr
