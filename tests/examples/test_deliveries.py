"""Webhook deliveries as GitHub sends them, taken by a real trigger: once a pair of commits, whatever comes."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from reviewer.work import PullRequest
from trial.deliveries import Sender, at_once, tampered
from trial.payloads import pull_request

from runclaim import Context, Runclaim
from runclaim.errors import SignatureRefused
from runclaim.flows.inbound.webhook import Delivery, DeliveryOutcome, Webhook
from tests.examples.conftest import git

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "a secret of thirty-two characters"


@pytest.fixture
def trigger(ledger_url: str) -> Iterator[Webhook[PullRequest]]:
    """A trigger that maps what a review needs, on an application whose broker is in memory."""
    app = Celery("hooked", broker="memory://", set_as_current=False)
    runs = Runclaim(app, database_url=ledger_url)
    review = runs.flow(
        "review", PullRequest, key="{repo}:pr-{number}:base-{base}:head-{head}", subject="{repo}:pr-{number}"
    )

    @review.phase
    def plan(ctx: Context[PullRequest]) -> str:
        return ctx.input.head

    @runs.webhook("github", flow=review, secret=SECRET)
    def hook(delivery: Delivery) -> PullRequest | None:
        if delivery.event != "pull_request":
            return None
        pull = delivery.payload["pull_request"]
        repo = delivery.payload["repository"]["full_name"]
        return PullRequest(repo, pull["number"], pull["base"]["sha"], pull["head"]["sha"], "/clones/app")

    yield hook
    runs.ledger.database.close()
    app.close()


@pytest.fixture
def sender() -> Sender:
    return Sender(secret=SECRET, rng=Random(4))


@pytest.fixture
def pull(clone: Path) -> PullRequest:
    """The second commit as a pull request."""
    base, head = (git(clone, "rev-parse", f"HEAD~{back}") for back in (2, 1))
    return PullRequest("acme/app", 7, base, head, str(clone))


def test_a_payload_tells_what_git_knows_of_the_commits(pull: PullRequest):
    told = pull_request("opened", pull)
    found = told["pull_request"]

    assert ("opened", 7, "acme/app") == (told["action"], told["number"], told["repository"]["full_name"])
    assert (pull.base, pull.head) == (found["base"]["sha"], found["head"]["sha"])
    assert ("change 1", "ada") == (found["title"], found["user"]["login"])
    assert (2, 1, 1) == (found["additions"], found["deletions"], found["changed_files"])
    assert "2026-01-02T03:04:05" == found["created_at"][:19]


def test_a_push_tells_the_head_it_replaced_and_nothing_else_does(pull: PullRequest):
    pushed, opened = pull_request("synchronize", pull, before="a1"), pull_request("opened", pull)

    assert ("a1", pull.head) == (pushed["before"], pushed["after"])
    assert "before" not in opened


def test_a_first_commit_is_paired_with_the_empty_tree(clone: Path):
    empty, first = git(clone, "hash-object", "-t", "tree", "/dev/null"), git(clone, "rev-parse", "HEAD~2")
    found = pull_request("opened", PullRequest("acme/app", 1, empty, first, str(clone)))["pull_request"]

    assert (1, 0, empty) == (found["additions"], found["deletions"], found["base"]["sha"])


def test_a_double_click_makes_one_run_of_the_pair(trigger: Webhook[PullRequest], sender: Sender, pull: PullRequest):
    click = sender.delivery(pull_request("opened", pull))
    first, second = at_once(trigger.receive, click, click)

    assert {DeliveryOutcome.ENQUEUED, DeliveryOutcome.DUPLICATE} == {first.outcome, second.outcome}
    assert first.run.id == second.run.id
    assert f"acme/app:pr-7:base-{pull.base}:head-{pull.head}" == first.run.view.key


def test_a_later_delivery_about_the_same_pair_finds_its_run(
    trigger: Webhook[PullRequest], sender: Sender, pull: PullRequest
):
    first, again = (sender.delivery(pull_request(action, pull)) for action in ("opened", "reopened"))
    made = trigger.receive(first.body, first.headers)
    found = trigger.receive(again.body, again.headers)

    assert first.headers["X-GitHub-Delivery"] != again.headers["X-GitHub-Delivery"]
    assert DeliveryOutcome.EXISTING == found.outcome
    assert made.run is not None
    assert found.run is not None
    assert made.run.id == found.run.id


def test_a_push_supersedes_the_run_of_the_older_pair(
    trigger: Webhook[PullRequest], sender: Sender, pull: PullRequest, clone: Path
):
    head = git(clone, "rev-parse", "HEAD")
    newer = replace(pull, head=head)
    opened = sender.delivery(pull_request("opened", pull))
    pushed = sender.delivery(pull_request("synchronize", newer, before=pull.head))
    old, new = (trigger.receive(each.body, each.headers).run for each in (opened, pushed))

    assert old is not None
    assert new is not None
    assert ["superseded", "queued"] == [old.state, new.state]


@pytest.mark.parametrize("how", ["signed with another secret", "changed on the way"])
def test_a_delivery_that_is_not_the_forges_is_refused(
    trigger: Webhook[PullRequest], sender: Sender, pull: PullRequest, how: str
):
    payload = pull_request("opened", pull)
    bad = sender.forged(payload) if "secret" in how else tampered(sender.delivery(payload))
    (refused,) = at_once(trigger.receive, bad)

    assert isinstance(refused, SignatureRefused)
    # What was changed is still a payload: only the signature tells.
    assert json.loads(bad.body) == payload


def test_a_seed_gives_the_same_deliveries_again(pull: PullRequest):
    payload = pull_request("opened", pull)
    one, other = (Sender(secret=SECRET, rng=Random(9)).delivery(payload) for _ in range(2))

    assert one == other
