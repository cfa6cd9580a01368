"""`runclaim actions`: what a person sees of planned actions and decides of those that were not posted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runclaim import ActionRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Line


@pytest.fixture
def planned(local: Line) -> Callable[[Exception | None], dict[str, Any]]:
    """Plan a comment, have it sent, and return the action as JSON; sending raises the error, if one is given."""
    bench, trouble = local.bench, []

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
        return json.loads(local("actions", "list", "--run", run.id, "--json").stdout)

    return plan


def test_actions_are_listed_with_what_became_of_them(local: Line, planned: Callable[..., dict[str, Any]]):
    action = planned()
    line = local("actions", "list").stdout.rstrip("\n").split("\t")
    failed = local("actions", "list", "--state", "failed")

    assert ("posted", "upstream-7", {"number": 7}) == (action["state"], action["upstream_id"], action["payload"])
    assert f"{action['run_id']}:write:0" == action["idempotency_key"]
    assert [action["id"], "posted", "comment", action["run_id"], "write", "1", "upstream-7"] == line
    assert (0, "", "no actions\n") == (failed.exit_code, failed.stdout, failed.stderr)


def test_a_failed_action_is_sent_again_without_a_question(local: Line, planned: Callable[..., dict[str, Any]]):
    action = planned(ActionRejected("closed"))
    told = local("actions", "retry", action["id"])
    local.bench.send()
    again = local("actions", "retry", action["id"])

    assert ("failed", "closed") == (action["state"], action["error"]["message"])
    assert (0, f"{action['id']}\tplanned\n") == (told.exit_code, told.stdout)
    assert "is sent when beat asks for it, within 5 s" in told.stderr
    assert 4 == again.exit_code
    assert f"cannot retry action {action['id']}: it is posted (only a failed or unknown one can be)" in again.stderr


def test_an_unknown_action_is_sent_again_only_by_somebody_who_means_it(
    local: Line, planned: Callable[..., dict[str, Any]]
):
    action = planned(ConnectionError("cut"))
    asked = local("actions", "retry", action["id"])
    told = local("actions", "retry", action["id"], "--yes", "--json")

    assert "unknown" == action["state"]
    assert (2, "") == (asked.exit_code, asked.stdout)
    assert (0, "planned") == (told.exit_code, json.loads(told.stdout)["state"])


@pytest.mark.parametrize(
    "words, state, upstream", [(["--posted", "note-9"], "posted", "note-9"), (["--never"], "failed", None)]
)
def test_an_unknown_action_is_resolved_once(
    local: Line, planned: Callable[..., dict[str, Any]], words: list[str], state: str, upstream: str | None
):
    action = planned(ConnectionError("cut"))
    unsaid = local("actions", "resolve", action["id"])
    told = local("actions", "resolve", action["id"], *words, "--json")
    twice = local("actions", "resolve", action["id"], "--never")
    local.bench.send()
    after = json.loads(local("actions", "list", "--json").stdout)

    assert 2 == unsaid.exit_code
    assert "say what became of it: --posted UPSTREAM_ID or --never" in unsaid.stderr
    assert (0, state, upstream) == (told.exit_code, (found := json.loads(told.stdout))["state"], found["upstream_id"])
    assert 4 == twice.exit_code
    assert f"it is {state} (only an unknown one can be)" in twice.stderr
    assert (state, upstream) == (after["state"], after["upstream_id"])


def test_the_api_has_no_actions_and_says_where_they_are(local: Line):
    told = local("actions", "list", "--remote", RUNCLAIM_API_URL="http://127.0.0.1:1")

    assert (4, "") == (told.exit_code, told.stdout)
    assert "name the ledger with --url or -A" in told.stderr
