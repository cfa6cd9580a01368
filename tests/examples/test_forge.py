"""The stand-in for a forge: the shape of its API, what it remembers, and how it misbehaves."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from forge.faults import Fault, Plan
from forge.store import comments, requests

from tests.examples.api import ISSUE, PULL, ask, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.server import Forge

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "review"
ON_A_LINE = {"body": "unused", "path": "app.py", "line": 3, "commit_id": "b2"}


def test_a_comment_is_answered_with_its_id_and_is_listed_from_then_on(forge: Forge):
    made = say(forge.url)
    listed = ask(forge.url, "GET", ISSUE)

    assert made is not None
    assert listed is not None
    assert (201, 200) == (made.status, listed.status)
    assert [made.body] == listed.body
    assert "well done" == made.body["body"]
    assert isinstance(made.body["id"], int)


def test_a_comment_on_a_line_keeps_its_place_and_is_no_comment_on_the_whole(forge: Forge):
    made = ask(forge.url, "POST", PULL, ON_A_LINE)
    whole = ask(forge.url, "GET", ISSUE)

    assert made is not None
    assert whole is not None
    assert 201 == made.status
    assert ON_A_LINE == {name: made.body[name] for name in ON_A_LINE}
    assert [] == whole.body


def test_the_same_post_twice_is_two_comments(forge: Forge, forge_file: Path):
    """INVARIANT: the forge hides no doubled comment. Breaks if it ever keeps only one of two equal posts."""
    say(forge.url)
    say(forge.url)

    assert ["well done", "well done"] == [each.body for each in comments(forge_file)]


def test_a_listing_comes_in_pages_of_which_each_names_the_next(forge: Forge):
    for number in range(5):
        say(forge.url, f"comment {number}")
    pages = [ask(forge.url, "GET", f"{ISSUE}?per_page=2&page={page}") for page in (1, 2, 3)]

    told = [page for page in pages if page is not None]
    assert [["comment 0", "comment 1"], ["comment 2", "comment 3"], ["comment 4"]] == [
        [each["body"] for each in page.body] for page in told
    ]
    assert [f'<{forge.url}{ISSUE}?per_page=2&page={page}>; rel="next"' for page in (2, 3)] == [
        page.link for page in told[:2]
    ]
    assert "" == told[2].link


@pytest.mark.parametrize(
    "status, path, content",
    [
        (400, ISSUE, "no json"),
        (400, ISSUE, '["no object"]'),
        (404, "/repos/acme/app/issues/seven/comments", {"body": "?"}),
        (422, ISSUE, {}),
        (422, ISSUE, {"body": ""}),
        (422, ISSUE, {"body": 7}),
        (422, ISSUE, {"body": "x" * 65_537}),
        (422, PULL, {**ON_A_LINE, "line": "3"}),
        (422, PULL, {"body": "unused"}),
    ],
)
def test_what_github_refuses_is_refused_and_not_kept(forge: Forge, forge_file: Path, status, path, content):
    answer = ask(forge.url, "POST", path, content)

    assert answer is not None
    assert status == answer.status
    assert [] == comments(forge_file)


def test_a_refusal_names_the_fields(forge: Forge):
    answer = ask(forge.url, "POST", PULL, {"body": "unused", "path": "", "line": 3})

    assert answer is not None
    assert ["path", "commit_id"] == [error["field"] for error in answer.body["errors"]]


@pytest.mark.parametrize(
    "fault, status, applied",
    [
        (Fault.LOST_REPLY, None, True),
        (Fault.ERROR_AFTER, 500, True),
        (Fault.ERROR_BEFORE, 502, False),
        (Fault.REFUSED, 422, False),
        (Fault.SLOW, 201, True),
    ],
)
def test_a_fault_is_met_once_and_logged_with_whether_the_comment_is_there(
    forge: Forge, forge_file: Path, fault, status, applied
):
    plan(forge, first=[fault], slow_seconds=0)
    met, after = say(forge.url, "first"), say(forge.url, "second")

    assert after is not None
    assert (status, 201) == (met and met.status, after.status)
    assert [(fault, applied), (Fault.NONE, True)] == [(each.fault, each.applied) for each in requests(forge_file)]
    assert [*["first"] * applied, "second"] == [each.body for each in comments(forge_file)]


def test_a_slow_answer_is_about_a_comment_that_is_there_before_the_sender_gives_up(forge: Forge):
    plan(forge, first=[Fault.SLOW], slow_seconds=30)
    with pytest.raises(TimeoutError):
        ask(forge.url, "POST", ISSUE, {"body": "well done"}, timeout=0.2)
    listed = ask(forge.url, "GET", ISSUE)

    assert listed is not None
    assert ["well done"] == [each["body"] for each in listed.body]


@pytest.mark.parametrize("fault, status", [(Fault.LOST_REPLY, None), (Fault.ERROR_BEFORE, 502), (Fault.REFUSED, 200)])
def test_a_listing_misbehaves_too_but_is_not_refused(forge: Forge, fault, status):
    plan(forge, rates={fault: 1})
    answer = ask(forge.url, "GET", ISSUE)

    assert status == (answer and answer.status)


def test_a_plan_gives_the_same_faults_to_the_same_numbers_and_each_at_its_rate():
    rates = {Fault.LOST_REPLY: 0.2, Fault.ERROR_BEFORE: 0.1}
    met = [Plan(seed=4, rates=rates).fault("POST", number) for number in range(1, 2001)]
    counts = Counter(met)

    assert met == [Plan(seed=4, rates=rates).fault("POST", number) for number in range(1, 2001)]
    assert met != [Plan(seed=5, rates=rates).fault("POST", number) for number in range(1, 2001)]
    assert (0.2, 0.1) == (round(counts[Fault.LOST_REPLY] / 2000, 1), round(counts[Fault.ERROR_BEFORE] / 2000, 1))


def test_a_listing_takes_no_fault_from_the_first_posts(forge: Forge):
    plan(forge, first=[Fault.ERROR_AFTER])
    listed, met = ask(forge.url, "GET", ISSUE), say(forge.url)

    assert listed is not None
    assert met is not None
    assert (200, 500) == (listed.status, met.status)


def test_no_plan_that_is_none_replaces_the_one_there_is(forge: Forge):
    plan(forge, first=[Fault.REFUSED])
    answer = ask(forge.url, "PUT", "/control/faults", {"rates": {"bad mood": 1}})
    met = say(forge.url)

    assert answer is not None
    assert met is not None
    assert (422, 422) == (answer.status, met.status)
    assert "bad mood" in answer.body["message"]


def test_a_killed_forge_started_again_has_its_comments_and_goes_on_with_its_plan(tmp_path: Path):
    """
    INVARIANT: whatever was applied is there after a SIGKILL, and no request of the plan is counted twice.

    Breaks if a request is answered before it is on the disk, or the plan is counted in memory.
    """
    file = tmp_path / "forge.db"
    with process(file) as (killed, url):
        ask(url, "PUT", "/control/faults", {"first": ["none", "500 after applying", "502 before applying"]})
        before = [say(url, text) for text in ("first", "second")]
        killed.kill()
        killed.wait()
    with process(file, url.rpartition(":")[2]) as (_, same_url):
        after = [say(url, text) for text in ("third", "fourth")]

    assert url == same_url
    assert [201, 500, 502, 201] == [answer and answer.status for answer in before + after]
    assert ["first", "second", "fourth"] == [each.body for each in comments(file)]


@contextlib.contextmanager
def process(file: Path, port: str = "0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A forge as a process of its own, and where it is."""
    command = [sys.executable, "-m", "forge", str(file), "--port", port]
    with subprocess.Popen(command, cwd=EXAMPLE, stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None
        try:
            yield made, made.stdout.readline().split()[1]
        finally:
            made.kill()


def plan(forge: Forge, **told: object) -> None:
    answer = ask(forge.url, "PUT", "/control/faults", told)
    assert answer is not None
    assert 200 == answer.status
