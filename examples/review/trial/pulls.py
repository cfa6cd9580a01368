"""
What happens on the forge: pull requests are opened, some are pushed to again, and what it tells of that.

Each pair of commits is a pull request of its own. Some are opened with the pair before theirs and pushed to soon
after, so that the older run is superseded: in its queue, in the middle of a body, or not at all if it was faster.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reviewer.work import PullRequest

from trial.payloads import pull_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reviewer.changes import History

    from trial.deliveries import Delivery, Sender

#: A review's key wherever it stands in a text.
KEY: Final = re.compile(r"[\w.-]+/[\w.-]+:pr-\d+:base-[0-9a-f]+:head-[0-9a-f]+")
#: How many deliveries come between the opening of a pull request and the push to it.
_PUSHED_AFTER: Final = (3, 9, 15)
#: Every so many-th is told of again, and forged.
_AGAIN_EVERY, _FORGED_EVERY = 5, 8
_FORGED_NUMBER: Final = 9000


@dataclass(frozen=True)
class Script:
    """What is delivered: batches, each at once. `overtaken` are the older pairs of those that are pushed to."""

    pulls: list[PullRequest]
    overtaken: list[PullRequest]
    batches: list[Sequence[Delivery]]
    forged: int


def key_of(pull: PullRequest) -> str:
    """The run key that the review of these commits has to have; written here once more, on purpose."""
    return f"{pull.repo}:pr-{pull.number}:base-{pull.base}:head-{pull.head}"


def short(key: str) -> str:
    """A key in few words: `pr-7 a1b2c3d..e4f5a6b`."""
    _, pull, base, head = key.rsplit(":", 3)
    return f"{pull} {base.removeprefix('base-')[:7]}..{head.removeprefix('head-')[:7]}"


def pulls(found: History, *, owner: str) -> list[PullRequest]:
    """A pull request for each pair, in their order; as a repository of `owner`."""
    name = re.sub(r"[^\w.-]", "-", Path(found.repo).name) or "repository"
    return [
        PullRequest(f"{owner}/{name}", number, base, head, found.repo)
        for number, (base, head) in enumerate(found.pairs, 1)
    ]


def script(found: History, sender: Sender, *, owner: str) -> Script:
    """Who is told what, and in which order."""
    asked = pulls(found, owner=owner)
    # A pair further back in the history is what a pull request had before the push.
    before = {new.number: replace(new, base=old.base, head=old.head) for new, old in pairwise(asked)}
    pushes = dict(zip(sorted(before)[: max(1, len(asked) // 8)], _PUSHED_AFTER, strict=False))
    events: list[tuple[float, Sequence[Delivery]]] = []
    forged = 0
    for place, pull in enumerate(asked):
        if wait := pushes.get(pull.number):
            old = before[pull.number]
            events.append((place, _twice(sender.delivery(pull_request("opened", old)))))
            push = pull_request("synchronize", pull, before=old.head)
            events.append((place + wait, _twice(sender.delivery(push))))
        else:
            events.append((place, _twice(sender.delivery(pull_request("opened", pull)))))
        if place % _AGAIN_EVERY == _AGAIN_EVERY - 2 and not wait:
            events.append((place + 2.5, [sender.delivery(pull_request("reopened", pull))]))
        if place % _FORGED_EVERY == 1:
            other = replace(pull, number=_FORGED_NUMBER + pull.number)
            events.append((place + 0.5, [sender.forged(pull_request("opened", other))]))
            forged += 1
    ordered = [batch for _, batch in sorted(events, key=lambda event: event[0])]
    return Script(asked, [before[number] for number in pushes], ordered, forged)


def _twice(delivery: Delivery) -> Sequence[Delivery]:
    return delivery, delivery
