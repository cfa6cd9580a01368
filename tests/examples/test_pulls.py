"""What is delivered in the demo: every pair as a pull request, twice at once, some pushed to again, some forged."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest
from reviewer.changes import history
from reviewer.checks import examine
from trial.deliveries import Sender
from trial.pulls import KEY, Script, key_of, script, short

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def told(clone: Path) -> Script:
    sender = Sender(secret="a secret of thirty-two characters", rng=Random(4))
    return script(history(clone, most=40), sender, owner="demo")


def test_every_pair_is_a_pull_request_that_is_told_of_twice_at_once(told: Script):
    doubled = [batch for batch in told.batches if len(batch) == 2]
    payloads = [json.loads(batch[0].body) for batch in doubled]

    assert [1, 2, 3] == [pull.number for pull in told.pulls]
    assert all(first == second for first, second in doubled)
    assert {(pull.number, pull.head) for pull in [*told.pulls, *told.overtaken]} == {
        (payload["number"], payload["pull_request"]["head"]["sha"]) for payload in payloads
    }


def test_a_push_comes_after_the_opening_that_it_overtakes(told: Script):
    pushed = told.overtaken[0].number
    about = [json.loads(batch[0].body) for batch in told.batches]

    actions = [payload["action"] for payload in about if payload["number"] == pushed]
    assert ["opened", "synchronize"] == actions
    assert {pushed} == {pull.number for pull in told.overtaken}


def test_forged_deliveries_are_about_pull_requests_that_nobody_else_tells_of(told: Script):
    """A forged delivery that was taken shows as a review that nobody asked for."""
    numbers = Counter(json.loads(batch[0].body)["number"] for batch in told.batches if len(batch) == 1)

    assert told.forged > 0
    assert told.forged == sum(count for number, count in numbers.items() if number > 9000)


def test_a_key_is_found_in_a_text_and_told_in_short(told: Script):
    key = key_of(told.pulls[0])

    found = KEY.search(f"'key': '{key}', 'pull': …")
    assert found is not None
    assert key == found[0]
    assert f"pr-1 {told.pulls[0].base[:7]}..{told.pulls[0].head[:7]}" == short(key)


@pytest.mark.parametrize(
    "source, found",
    [
        ("import os\n", [("minor", "'os' imported but unused")]),
        ("print(nobody)\n", [("major", "undefined name 'nobody'")]),
        ("def broken(:\n", [("critical", "does not compile: invalid syntax")]),
        ("try:\n    pass\nexcept Exception:\n    pass\n", [("minor", "catches every Exception")]),
        ("try:\n    pass\nexcept (OSError, ValueError):\n    pass\n", []),
        ("def long():\n" + "    pass\n" * 30, [("minor", "long has 31 lines")]),
        ("def wide(a, b, c, /, d, e, *, f, g):\n    pass\n", [("minor", "wide takes 7 arguments")]),
    ],
)
def test_a_file_is_examined_for_failures_and_habits(source: str, found: list[tuple[str, str]]):
    assert found == [(each.severity, each.title) for each in examine("module.py", source.encode())]
