"""Flower's task list has every execution of a phase, with its run key and its verdict."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter

import pytest

from runclaim import RunState
from tests.harness import Site, until

#: What Flower shows of an execution: the name, the run key and the verdict.
Shown = Counter[tuple[str, str, str]]


def shown(address: str) -> Shown:
    with urllib.request.urlopen(f"{address}/api/tasks?limit=1000", timeout=10) as answer:
        tasks = json.load(answer).values()
    return Counter(
        (task["name"] or "", task["args"] or "", task["state"])
        for task in tasks
        if not (task["name"] or "").startswith("runclaim.")
    )


def wanted(*lines: str) -> Shown:
    return Counter(tuple(line.split()) for line in lines)  # type: ignore[misc]


EXPECTED = wanted(
    # Inline or not, each phase is a task of its own.
    "steps.first good SUCCESS",
    "steps.second good SUCCESS",
    "steps.third good SUCCESS",
    "steps.first skips SUCCESS",
    "steps.second skips SUCCESS",
    "steps.third skips SUCCESS",
    # Each attempt too.
    "steps.first unlucky SUCCESS",
    "steps.second unlucky RETRY",
    "steps.second unlucky SUCCESS",
    "steps.third unlucky SUCCESS",
    "steps.first bad RETRY",
    "steps.first bad FAILURE",
    "steps.first stuck SUCCESS",
    "steps.second stuck BLOCKED",
    "steps.first older SUCCESS",
    "steps.second older CLAIMLOST",
    "steps.first unwanted CANCELED",
    # Both messages more than good's own.
    "steps.first good DUPLICATE",
    "steps.first good DUPLICATE",
)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.site(
    # Alone: a message that names several runs shows the first one's key and how many more.
    subjects=True,
    phases={"first": {"max_attempts": 2}},
    settings={"lease": "10m", "dispatch_after": "1h", "grouped": False},
)
def test_every_execution_is_shown_with_its_key_and_its_verdict(redis_site: Site, pool: str):
    """
    INVARIANT: what ran, ran again or was refused can be seen in Flower; a phase that ran inline like any other.

    Breaks if an execution sends no task events, or sends them under another task's id.
    """
    site = redis_site
    address = site.flower()
    site.worker(pool=pool, concurrency=2, events=True)
    older = site.enqueue("older", about="s", second="gate")
    unwanted = site.enqueue("unwanted", about="u", first="check")
    site.started(older, "second")
    site.started(unwanted, "first")
    unwanted.cancel()
    newest = site.stage.steps.enqueue(name="good", about="s")
    site.open("older", "second")
    site.ended(newest, upkeep=True)
    site.publish(newest, fence=0, phase="first", times=2)
    others = [
        site.enqueue("skips", about="1", second="skip"),
        site.enqueue("unlucky", about="2", second="fail 1"),
    ]
    bad, stuck = site.enqueue("bad", about="3", first="fail 9"), site.enqueue("stuck", about="4", second="block")
    site.ended(*others, upkeep=True)
    site.ended(bad, state=RunState.FAILED, upkeep=True)
    site.ended(stuck, state=RunState.BLOCKED, upkeep=True)

    told = lambda: EXPECTED - shown(address)  # noqa: E731
    until(lambda: not told(), "every verdict", so_far=lambda: (told(), shown(address), site.story()))
    assert EXPECTED == shown(address)


def test_a_worker_without_events_tells_nobody_until_flower_asks(redis_site: Site):
    site = redis_site
    site.worker(pool="threads", events=False, quiet=False)
    before = site.enqueue("before")
    site.ended(before)
    address = site.flower()
    site.stage.app.control.enable_events()
    number = iter(range(1000))

    def seen() -> bool:
        site.ended(site.enqueue(f"after{next(number)}"))
        return any(name == "steps.third" for name, _, _ in shown(address))

    until(seen, "an inline phase in Flower", so_far=lambda: shown(address))
    assert not [args for _, args, _ in shown(address) if args == "before"]
