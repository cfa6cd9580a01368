"""The reviewer's way to the forge: what surely has not arrived, what may have, and how it is found again."""

from __future__ import annotations

import http.client
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import pytest
from forge.faults import Fault
from forge.store import comments
from reviewer.posting import find, post, visible
from reviewer.work import Comment

from runclaim import ActionRejected, Retry
from runclaim.servers.machine import free_port
from tests.examples.api import ask, say

if TYPE_CHECKING:
    from pathlib import Path

    from forge.server import Forge

WHOLE = Comment("acme/app", 7, "well done")
ON_A_LINE = Comment("acme/app", 7, "unused", "app.py", 3, "b2")


@pytest.fixture(autouse=True)
def _told_where(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEW_FORGE_URL", forge.url)


@pytest.mark.parametrize("comment", [WHOLE, ON_A_LINE], ids=["on the whole", "on a line"])
def test_a_posted_comment_is_found_by_its_marker_and_by_no_other(forge_file: Path, comment: Comment):
    made = post(comment, "run:deliver:0")

    (kept,) = comments(forge_file)
    assert str(kept.id) == made == find(comment, "run:deliver:0")
    assert find(comment, "run:deliver:1") is None
    assert comment == replace(comment, body=visible(kept.body), path=kept.path, line=kept.line)


def test_the_marker_of_action_1_is_not_found_in_that_of_action_10():
    post(WHOLE, "run:deliver:10")

    assert find(WHOLE, "run:deliver:1") is None


def test_a_comment_is_found_on_the_last_of_many_pages(forge: Forge):
    for _ in range(100):
        say(forge.url)
    made = post(WHOLE, "run:compound:0")

    assert made == find(WHOLE, "run:compound:0")


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.ERROR_AFTER, Fault.ERROR_BEFORE])
def test_what_may_have_arrived_is_no_retry_and_the_lookup_tells(forge: Forge, fault: Fault):
    """
    INVARIANT: only what surely has not arrived is told as a `Retry`, because that is sent again without a lookup.

    Breaks if an error of the server, or a connection that ends, is taken for a refusal.
    """
    ask(forge.url, "PUT", "/control/faults", {"first": [fault]})
    with pytest.raises((HTTPError, http.client.HTTPException, ConnectionError)):
        post(WHOLE, "run:compound:0")

    assert fault.applies == (find(WHOLE, "run:compound:0") is not None)


def test_a_forge_that_is_down_has_surely_not_taken_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REVIEW_FORGE_URL", f"http://127.0.0.1:{free_port()}")

    with pytest.raises(Retry):
        post(WHOLE, "run:compound:0")


def test_what_the_forge_refuses_is_not_sent_again(forge: Forge):
    ask(forge.url, "PUT", "/control/faults", {"first": [Fault.REFUSED]})

    with pytest.raises(ActionRejected, match="422"):
        post(WHOLE, "run:compound:0")


def test_a_lookup_that_fails_gives_no_answer(forge: Forge):
    """INVARIANT: a listing that cannot be had never reads as "not there". Breaks if `find` swallows an error."""
    post(WHOLE, "run:compound:0")
    ask(forge.url, "PUT", "/control/faults", {"rates": {Fault.ERROR_BEFORE: 1}})

    with pytest.raises(HTTPError):
        find(WHOLE, "run:compound:0")
